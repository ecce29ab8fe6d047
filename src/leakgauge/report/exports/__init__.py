"""An audit's results as files for other programs: CSV, Parquet, LaTeX, JUnit."""
