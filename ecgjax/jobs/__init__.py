"""Floor 4: one file a verb; the only place where everything meets."""
