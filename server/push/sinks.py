"""What a push writes to: libav's own protocols, or MPEG-TS by SRT."""

from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from server.srt import libsrt
from server.wire.srt import srt_address

OPEN_S, _WRITE_S = 10.0, 10.0
_SRT_OPEN_S = 3.0  # of each address, as libsrt has it by itself
_TRANSPORT_PACKET_BYTES = 188
_FORMATS = {"rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp", "udp": "mpegts", "srt": "mpegts"}
_OPTIONS = {
    "flv": {"flvflags": "no_duration_filesize", "rw_timeout": str(int(_WRITE_S * 1e6))},
    "rtsp": {"rtsp_transport": "tcp"},
    "mpegts": {"flush_packets": "1"},
}


class Sink(Protocol):
    """One connection; leaving it ends that as its protocol does."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def send(self, packet: "Packet[Any]") -> None:
        """A packet of the source that it was made for. Raises av.FFmpegError or OSError."""
        ...


class Muxed:
    """The source's packets as they are, by the muxer that suits the scheme."""

    def __init__(self, address: str, source: InputContainer) -> None:
        """Raises av.FFmpegError, OSError or libsrt.SrtError where nobody takes them."""
        scheme = urlsplit(address).scheme
        form = _FORMATS[scheme]
        self._srt = _SrtWriter(address) if scheme == "srt" else None
        opened = av.open(
            self._srt or address, "w", format=form, options=_OPTIONS[form], timeout=(OPEN_S, None)
        )
        assert isinstance(opened, OutputContainer)
        self._container = opened
        self._streams = {stream.index: opened.add_stream_from_template(stream) for stream in source.streams}
        opened.start_encoding()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._container.close()
        if self._srt is not None:
            self._srt.close()

    def send(self, packet: "Packet[Any]") -> None:
        packet.stream = self._streams[packet.stream.index]
        self._container.mux_one(packet)


class _SrtWriter:
    """Transport packets as they come; none is spread over two messages."""

    def __init__(self, address: str) -> None:
        where = srt_address(address)
        self._connection = libsrt.call(where, libsrt.addresses(where), timeout_s=_SRT_OPEN_S)
        self._rest = b""

    def write(self, data: bytes) -> int:
        whole = self._rest + data
        end = len(whole) - len(whole) % _TRANSPORT_PACKET_BYTES
        self._connection.send(whole[:end])
        self._rest = whole[end:]
        return len(data)

    def close(self) -> None:
        self._connection.close()
