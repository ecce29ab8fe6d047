"""Attacks: from an observation to a reconstruction. They never import the truth, the data, clients or measures."""
