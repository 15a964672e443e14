"""Carries messages from the bus to the model server and back, and loses none."""
