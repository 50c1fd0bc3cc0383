"""Statistics without a model: bootstrap and t intervals, ranks, ensembles of numbers."""
