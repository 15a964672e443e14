"""Readers: one module per form that labelled wafer maps come in."""
