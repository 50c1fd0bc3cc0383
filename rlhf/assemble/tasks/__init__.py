"""One file per task of `train.py`: configuration to objects."""
