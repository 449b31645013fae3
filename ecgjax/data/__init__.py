"""Floor 2: cohorts to shards to batches."""
