"""The figures, files and words of a sweep of defences."""
