"""A stream's packets for other gateways of the cluster."""
