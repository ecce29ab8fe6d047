"""What the results of an audit say, with a stated false-alarm rate."""
