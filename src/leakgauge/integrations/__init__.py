"""Engines: each file only turns an engine's objects into ours, or ours into the engine's."""
