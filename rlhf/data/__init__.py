"""From records to batches: importers, the toy world, splits, rendering, caching, collation."""
