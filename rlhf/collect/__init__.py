"""Everything before a label: prompts, completions, filters."""
