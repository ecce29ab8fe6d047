"""`span-check`: texts whose layer inputs lie in the span of a gradient."""
