"""What happens to a raw frame inside a worker."""
