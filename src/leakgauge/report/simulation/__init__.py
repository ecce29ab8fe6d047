"""The page, figures, files and words of a simulated federation."""
