"""A policy trained on a shaped reward: RLOO and PPO."""
