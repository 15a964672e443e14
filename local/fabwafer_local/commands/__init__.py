"""The commands of a local system."""
