"""TOML files into tables: reading, changing, and saying in one sentence, with the line, what is wrong."""
