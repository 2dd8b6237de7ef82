"""What a muxer of MPEG-TS writes, a frame at a time."""

import av
from av.container import OutputContainer


class Pieces:
    """What a muxer writes, until it is taken."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data, self._data = bytes(self._data), bytearray()
        return data


def transport_stream(pieces: Pieces, **options: str) -> OutputContainer:
    return av.open(pieces, "w", format="mpegts", options={"flush_packets": "1", **options})
