"""What is counted and measured: for Prometheus and for the API."""
