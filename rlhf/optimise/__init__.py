"""From reward to policy: shaped rewards, controllers, policy training, and hand-over to other trainers."""
