"""Checks on the user's own model and data before training."""
