"""Where a stream's worker runs."""
