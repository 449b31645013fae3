"""Floor 1: offline conditioning of recordings and volumes; numpy in, numpy out."""
