"""HLS playlists as answers."""

import gzip
from functools import lru_cache

from fastapi import Request, Response

from server.gateway.auth.guard import Guard

PLAYLIST = "application/vnd.apple.mpegurl"
MP4 = "video/mp4"


def playlist_response(text: str, request: Request, guard: Guard, fresh_s: int = 0) -> Response:
    """Of what changes nothing comes from a cache."""
    kept = f"max-age={fresh_s}" if fresh_s else "no-cache"
    headers = {"Cache-Control": f"private, {kept}" if guard.on else kept, "Vary": "Accept-Encoding"}
    if not _takes_gzip(request.headers.get("Accept-Encoding", "")):
        return Response(text, media_type=PLAYLIST, headers=headers)
    return Response(_packed(text), media_type=PLAYLIST, headers={**headers, "Content-Encoding": "gzip"})


def _takes_gzip(accepted: str) -> bool:
    """By RFC 9110, 12.5.3."""
    for coding in accepted.lower().split(","):
        name, _, weight = coding.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


@lru_cache(maxsize=32)  # players that wait for one part are all answered the same
def _packed(text: str) -> bytes:
    return gzip.compress(text.encode(), compresslevel=6, mtime=0)
