"""Playing cells: worker processes on this machine, or Ray."""
