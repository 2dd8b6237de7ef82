"""RTSP as publishers speak it (RFC 2326), media interleaved on its own connection."""
