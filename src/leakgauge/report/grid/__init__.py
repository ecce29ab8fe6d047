"""The report over an audit's grid: one page that a person can read first and sign last."""
