"""Floor 0: axes, configuration, trees, mesh, files."""
