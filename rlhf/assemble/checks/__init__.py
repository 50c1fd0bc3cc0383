"""What is looked at before torch is imported: bounds, paths, misspelt keys."""
