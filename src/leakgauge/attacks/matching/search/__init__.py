"""Searches: L-BFGS and (signed) Adam, each for many restarts at once."""
