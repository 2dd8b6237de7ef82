"""How fast an engine is, measured here or on paper."""
