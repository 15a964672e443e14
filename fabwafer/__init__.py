"""What all parts of fabwafer share: wafer maps, models, messages, records, services and commands."""

__version__ = "0.1.0"
