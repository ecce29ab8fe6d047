"""R-GAP: the input layer by layer, from the output side, by linear systems."""
