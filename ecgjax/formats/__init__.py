"""Floor 1: files to Recording or Volume, in physical units; numpy only."""
