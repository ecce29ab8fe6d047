"""Closed-form attacks."""
