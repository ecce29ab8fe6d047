"""What an architecture gives away before any data exists: no training data is needed, and none can be reached from here."""
