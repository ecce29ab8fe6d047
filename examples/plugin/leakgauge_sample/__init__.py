"""A sample plug-in for leakgauge."""
