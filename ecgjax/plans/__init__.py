"""What a training step needs on a given topology, read from its compiled program; a model, not a measurement."""
