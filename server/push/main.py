"""Remuxes what comes on stdin, fragmented MP4 behind a line with the address, to that address.

Started as `python -m server.push.main`. The address may hold a key, and lists of processes are public.
Says "connected" on stdout; why it ended is the last line of its stderr.
"""

import sys
from typing import cast
from urllib.parse import urlsplit

import av
from av.container import InputContainer, OutputContainer

_OPEN_S, _WRITE_S = 10.0, 10.0
_FORMATS = {"rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp", "udp": "mpegts"}
_OPTIONS = {
    "flv": {"flvflags": "no_duration_filesize", "rw_timeout": str(int(_WRITE_S * 1e6))},
    "rtsp": {"rtsp_transport": "tcp"},
    "mpegts": {"flush_packets": "1"},
}


def push(address: str, source: InputContainer) -> None:
    """Until the source ends. Raises av.FFmpegError."""
    form = _FORMATS[urlsplit(address).scheme]
    with av.open(address, "w", format=form, options=_OPTIONS[form], timeout=(_OPEN_S, None)) as sink:
        assert isinstance(sink, OutputContainer)
        streams = {stream.index: sink.add_stream_from_template(stream) for stream in source.streams}
        sink.start_encoding()
        print("connected", flush=True)
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                sink.mux_one(packet)


def main() -> int:
    address = sys.stdin.buffer.readline().decode().strip()
    try:
        with av.open(sys.stdin.buffer, format="mp4") as source:
            push(address, cast(InputContainer, source))
    except (av.FFmpegError, OSError) as exc:
        print(getattr(exc, "strerror", None) or exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
