"""Floor 1: arrays in, scalar out."""
