"""Configs: plain Python, one function each; they never import ecgjax."""
