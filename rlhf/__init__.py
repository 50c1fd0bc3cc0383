"""Reward models from human preferences: the life of a preference, read top to bottom."""
