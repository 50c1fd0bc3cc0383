"""A trained reward model as a service over HTTP: `python -m rlhf.serve run=<folder>` (FastAPI, extra `serve`)."""
