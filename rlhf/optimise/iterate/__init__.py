"""Policy, votes, reward model, policy: generation by generation."""
