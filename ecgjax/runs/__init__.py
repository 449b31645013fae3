"""How a config, a data directory and a workdir become something that trains or answers."""
