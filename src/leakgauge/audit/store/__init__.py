"""The run store: SQLite, with tensors beside it."""
