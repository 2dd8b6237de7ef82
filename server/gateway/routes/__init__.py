"""The doors: what HTTP asks of the gateway."""
