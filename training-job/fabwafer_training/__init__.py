"""Retraining: from labelled wafer maps to a model version in the model store."""
