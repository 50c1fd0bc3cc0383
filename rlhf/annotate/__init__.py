"""Votes: who cast them, how far annotators agree, and what label they add up to."""
