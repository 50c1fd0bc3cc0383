"""The toy world: texts, gold reward, sampler, a tabular policy and a linear reward model."""
