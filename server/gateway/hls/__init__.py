"""A stream as HLS: segments, playlists, fragmented MP4."""
