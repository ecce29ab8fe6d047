"""The plan of an audit: TOML into cells."""
