"""The load test's pictures by SRT: an ffmpeg that has it sends the bytes on as they come."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from loadtest.http import ServerError
from loadtest.numbered_source import OnSent
from loadtest.pieces import Pieces, transport_stream

LATENCY_MS = 40  # of both sides, for what is lost to come again; the service's default is 120

# As many bytes a message as SRT usually has: whole packets, so that a lost one leaves the others whole.
_BYTES = ("-f", "data", "-raw_packet_size", "1316", "-i", "pipe:0", "-map", "0", "-c", "copy", "-f", "data")


@cache
def ffmpeg() -> str:
    """The program's path. Raises ServerError where none has SRT."""
    for path in _installed():
        words = (path, "-hide_banner", "-protocols")
        if b" srt\n" in subprocess.run(words, capture_output=True, check=False).stdout:
            return path
    raise ServerError("--in srt needs an ffmpeg that has SRT: Debian's, or pip install imageio-ffmpeg")


def _installed() -> Iterator[str]:
    path = shutil.which("ffmpeg")
    if path is not None:
        yield path
    with suppress(ImportError, RuntimeError):  # not installed; installed without the program
        import imageio_ffmpeg  # type: ignore[import-untyped]  # optional: a wheel with the program in it

        yield imageio_ffmpeg.get_ffmpeg_exe()


class Srt:
    """A way in (`numbered_source.Way`): a caller, in a process of its own for each connection."""

    def __init__(self, url: str, on_sent: OnSent) -> None:
        self._command = (ffmpeg(), "-loglevel", "quiet", "-nostdin", *_BYTES, "-flush_packets", "1", url)
        self._on_sent = on_sent
        self._pieces = Pieces()
        self._process: subprocess.Popen[bytes] | None = None

    def open(self) -> OutputContainer:
        self.close()
        self._pieces.take()
        self._process = subprocess.Popen(self._command, bufsize=0, stdin=subprocess.PIPE)
        return transport_stream(self._pieces)

    def send(self, container: OutputContainer, packet: "Packet[VideoStream]", number: int) -> None:
        """Raises OSError once the service takes no more."""
        assert self._process is not None
        assert self._process.stdin is not None
        container.mux_one(packet)
        self._process.stdin.write(self._pieces.take())
        self._on_sent([number])

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.kill()
            process.wait()
            process.stdin.close()
