"""The commands that `handlers` brings."""
