"""What happens to a raw frame between decoder and encoder."""
