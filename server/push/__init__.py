"""The process that sends one stream on to another server."""
