"""How encoded packets reach viewers."""
