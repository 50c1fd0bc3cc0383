"""A trained reward model in use: one engine, and the classes that read it."""
