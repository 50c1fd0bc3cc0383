"""Exchange with TRL, OpenRLHF and verl: reward functions, pairs, prompts."""
