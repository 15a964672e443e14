"""Imports: what other systems recorded, taken over into the records."""
