"""Active learning: train, pick, obtain labels, again."""
