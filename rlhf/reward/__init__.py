"""The reward model: trunk, heads, losses, the Lightning module, export and self-checks."""
