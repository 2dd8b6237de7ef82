"""Streams recorded: fragmented MP4 files in a folder."""
