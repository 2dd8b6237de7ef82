"""Sends on what comes on stdin, fragmented MP4 behind a line with the address, to that address.

Started as `python -m server.push.main`. The address may hold a key, and lists of processes are public.
Says "connected" on stdout, and "keyframe" where one is asked for; why it ended is the last line of stderr.
"""

import sys
from typing import cast
from urllib.parse import urlsplit

import av
from av.container import InputContainer

from server.push.sinks import Muxed, Sink
from server.srt.libsrt import SrtError


def open_sink(address: str, source: InputContainer) -> Sink:
    match urlsplit(address).scheme:
        case "whip" | "whips":
            from server.push.whip import WhipSink  # aiortc takes a while that the other pushes need not wait

            return WhipSink(address, source, on_need_keyframe=lambda: print("keyframe", flush=True))
        case _:
            return Muxed(address, source)


def push(address: str, source: InputContainer) -> None:
    """Until the source ends. Raises av.FFmpegError, OSError or SrtError."""
    with open_sink(address, source) as sink:
        print("connected", flush=True)
        for packet in source.demux():
            if packet.dts is not None:
                sink.send(packet)


def main() -> int:
    # Unbuffered: a buffer would wait until it is full, which at a low rate takes a second.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
        address = stdin.readline().decode().strip()
        try:
            with av.open(stdin, format="mp4") as source:
                push(address, cast(InputContainer, source))
        except (av.FFmpegError, OSError, SrtError) as exc:
            print(getattr(exc, "strerror", None) or exc, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
