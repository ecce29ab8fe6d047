"""What every engine's recorder shares: it imports no engine."""
