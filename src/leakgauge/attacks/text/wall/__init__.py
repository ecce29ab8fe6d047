"""Past the rank wall: texts of a classifier from the rows of its two embedding gradients."""
