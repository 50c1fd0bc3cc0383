"""From a reward to a policy: shaped rewards, RLOO, supervised tuning, DPO, and the loop over generations."""
