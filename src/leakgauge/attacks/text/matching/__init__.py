"""Gradient matching for text: candidates are embeddings, the result is tokens."""
