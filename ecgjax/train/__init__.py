"""Floor 2: state, step, loop, checkpoints."""
