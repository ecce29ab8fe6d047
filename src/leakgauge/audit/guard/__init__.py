"""A policy that is checked before an update leaves a client, and the timed attack behind it."""
