"""Floor 1: NNX modules; arrays in, a named dict out."""
