"""Reward and KL to the shaped reward; `shape_rewards` is the one function behind it."""

from rlhf.optimise.shaping.shape import shape_rewards

__all__ = ["shape_rewards"]
