"""Floor 1: random views on device; jnp, key first."""
