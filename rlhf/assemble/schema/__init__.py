"""Type, bounds, unit, default and meaning of every key, without torch."""
