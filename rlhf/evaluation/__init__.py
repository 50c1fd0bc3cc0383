"""Evaluating a reward model: accuracy with intervals, calibration, baselines."""
