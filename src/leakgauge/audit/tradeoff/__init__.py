"""Sweeps of defences: strength, accuracy, leakage, and the weakest that meets a policy."""
