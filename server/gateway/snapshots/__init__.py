"""A stream's picture as JPEG."""
