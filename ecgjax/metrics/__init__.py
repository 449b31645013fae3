"""Floor 1: whole result arrays to numbers with intervals."""
