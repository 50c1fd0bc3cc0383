"""Rules that pick the pairs to label next."""
