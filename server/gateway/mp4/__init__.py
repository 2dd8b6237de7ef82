"""H.264 and AAC as fragmented MP4: what HLS serves, recordings keep and pushes are fed with."""
