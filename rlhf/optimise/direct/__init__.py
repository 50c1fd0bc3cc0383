"""Policies without a reward model: supervised fine-tuning and DPO."""
