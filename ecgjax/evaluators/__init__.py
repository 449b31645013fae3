"""Floor 3: questions put to a checkpoint."""
