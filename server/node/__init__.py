"""A machine's part in a cluster: workers here, for gateways elsewhere."""
