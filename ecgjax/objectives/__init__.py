"""Floor 2: what is trained."""
