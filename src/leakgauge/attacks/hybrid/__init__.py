"""The hybrid of linear systems and matching (Chen & Campbell 2022)."""
