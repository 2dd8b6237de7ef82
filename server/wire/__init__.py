"""What gateway and worker share: their messages, URLs, the clock and logs. Imports neither of them."""
