"""Networks: the pretrained trunk, attention over shared prompts, heads, LoRA, the policy."""
