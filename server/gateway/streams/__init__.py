"""Which streams there are, what state each is in, and the worker that it has."""
