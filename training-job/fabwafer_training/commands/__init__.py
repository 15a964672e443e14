"""The command line of retraining."""
