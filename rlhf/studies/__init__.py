"""Published results, measured again where gold is known: one class per claim, many worlds, intervals over worlds."""
