"""Audits: cases, their records, and where they are kept."""
