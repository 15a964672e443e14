"""The vocabulary that every part of fabwafer shares: wafer maps, messages, the classifier and the records."""

__version__ = "0.1.0"
