"""Simulated federations: plan, split of pictures, rounds, attacks, scores and their store."""
