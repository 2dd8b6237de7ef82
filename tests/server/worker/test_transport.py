"""MPEG-TS frame by frame: each is given away as its last byte comes, whole, in whatever codec it is."""

import io
import socket
import statistics
import threading
import time
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from server.worker.ingest.frame_ends import FrameEnd, FrameEnds, begins_picture
from server.worker.ingest.network import NetworkSource
from server.worker.ingest.source import Times
from server.worker.ingest.transport import PACKET_BYTES, Arrivals, Segment, TransportStream

FPS = 25
SIZE = (160, 96)
VIDEO_PID = 0x100  # as libav's muxer numbers it
_OPTIONS = {
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "mpeg2video": {},
}


class Pieces:
    """What is written, until it is taken."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data, self._data = bytes(self._data), bytearray()
        return data


def encoded_frames(codec: str, *, frames: int, b_frames: int = 0, audio: bool = False) -> list[bytes]:
    """The transport packets of each frame, and of the sound up to it; noise, so that each has several."""
    pieces, noise = Pieces(), np.random.default_rng(1)
    sent = []
    with av.open(pieces, "w", format="mpegts", options={"flush_packets": "1"}) as out:
        video = out.add_stream(codec, rate=FPS, options=_OPTIONS[codec])
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        video.codec_context.gop_size, video.codec_context.max_b_frames = 12, b_frames
        sound = out.add_stream("aac", rate=48_000) if audio else None
        packets = []
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(
                noise.integers(0, 256, (SIZE[1] * 3 // 2, SIZE[0]), np.uint8), format="yuv420p"
            )
            frame.pts = number
            packets += video.encode(frame)
        packets += video.encode(None)
        for packet in packets:
            out.mux_one(packet)
            if sound is not None:
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((2, 48_000 // FPS), np.float32), format="fltp", layout="stereo"
                )
                silence.sample_rate = 48_000
                silence.pts, silence.time_base = len(sent) * 48_000 // FPS, Fraction(1, 48_000)
                for encoded in sound.encode(silence):
                    out.mux_one(encoded)
            sent.append(pieces.take())
    sent[-1] += pieces.take()
    return sent


def sent_with_piece(pieces: list[bytes]) -> dict[int, int]:
    """Which piece holds the last byte of the frame of that PTS."""
    last: list[int] = []
    for number, piece in enumerate(pieces):
        for at in range(0, len(piece), PACKET_BYTES):
            if (piece[at + 1] & 0x1F) << 8 | piece[at + 2] == VIDEO_PID:
                if piece[at + 1] & 0x40:
                    last.append(number)
                last[-1] = number
    with av.open(io.BytesIO(b"".join(pieces)), format="mpegts") as whole:
        stamps = [packet.pts for packet in whole.demux(video=0) if packet.size]
    return dict(zip(stamps, last, strict=True))


class Sender:
    """Sends frames to a port at their pace, and remembers when each was sent; the sound between them too."""

    def __init__(self, frames: list[bytes], port: int) -> None:
        self.sent_ns: list[int] = []
        self._frames = frames
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        begin_s = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number, data in enumerate(self._frames):
                if self._stop.wait(max(0.0, begin_s + number / FPS - time.monotonic())):
                    return
                for at in range(0, len(data), 7 * PACKET_BYTES):
                    sender.sendto(data[at : at + 7 * PACKET_BYTES], ("127.0.0.1", self._port))
                self.sent_ns.append(time.monotonic_ns())


def received(frames: list[bytes]) -> tuple[list[tuple[int, Times]], list[int], list[int]]:
    """PTS and times of each packet of the picture, the pictures' PTS, and the sound packets'."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    source = NetworkSource(
        f"udp://127.0.0.1:{port}", policy=None, max_size=SIZE, timeout_s=2.0, stop=threading.Event()
    )
    packets, pictures, sounds = [], [], []
    with Sender(frames, port) as sender:
        tracks = source.open()
        last = None
        for arrival in source.arrivals():
            if not arrival.video:
                sounds.append(arrival.packet.pts)
                continue
            packets.append((arrival.packet.pts, arrival.times))
            pictures += [frame.pts for frame in tracks.video.decode(arrival.packet)]
            last = arrival.packet.pts
            if len(packets) >= len(frames) - 10:
                break
        assert last is not None
    source.close()
    return packets, pictures, sounds, sender.sent_ns


@pytest.mark.parametrize("audio", [False, True])
@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(("codec", "held_frames"), [("libx264", 0), ("libx265", 0), ("mpeg2video", 1)])
def test_a_frame_is_given_away_as_it_arrives(codec, b_frames, audio, held_frames):
    frames = encoded_frames(codec, frames=70, b_frames=b_frames, audio=audio)
    packets, pictures, sounds, sent_ns = received(frames)

    # None lost, none made up, each at its own time.
    stamps = sorted(pts for pts, _ in packets)[3:-3]
    assert {b - a for a, b in pairwise(stamps)} == {90_000 // FPS}
    assert {b - a for a, b in pairwise(sorted(pictures)[3:-3])} == {90_000 // FPS}
    assert (len(sounds) > 30) == audio
    assert all(b > a for a, b in pairwise(sounds))

    late = packets[30:]
    holds_s = [(times.demuxed_ns - times.arrival_ns) / 1e9 for _, times in late]
    assert statistics.median(holds_s) < (held_frames + 0.5) / FPS
    sent_with = sent_with_piece(frames)
    errors_s = [abs(times.arrival_ns - sent_ns[sent_with[pts]]) / 1e9 for pts, times in late]
    assert statistics.median(errors_s) < 0.25 / FPS


def transport_packet(payload: bytes, *, counter: int, first: bool = False, pid: int = 0x100) -> bytes:
    """One that is filled up where the payload doesn't fill it."""
    filling = PACKET_BYTES - 4 - len(payload)
    head = bytes([0x47, first << 6 | pid >> 8, pid & 0xFF, (0x30 if filling else 0x10) | counter])
    field = bytes([filling - 1, 0][: min(filling, 2)]) + b"\xff" * (filling - 2)
    return head + field + payload


class Handmade:
    """Frames of H.264, whose slices nobody could decode, in a transport stream."""

    def __init__(self) -> None:
        self.counter = -1
        self.pts = 0

    def pes(self, slices: bytes, *, cut_at: int | None = None, first_slice: bool = True) -> bytes:
        """`cut_at`: a packet in the middle that is filled up."""
        self.pts += 3600
        p = self.pts
        stamp = bytes(
            [0x21 | p >> 29 & 0xE, p >> 22 & 0xFF, p >> 14 & 0xFE | 1, p >> 7 & 0xFF, p << 1 & 0xFE | 1]
        )
        unit = b"\0\0\1\x41" + (b"\x9a" if first_slice else b"\x2a")
        data = b"\0\0\1\xe0\0\0\x80\x80\5" + stamp + unit + slices
        out, first = b"", True
        while data:
            size = cut_at if cut_at is not None and not first else PACKET_BYTES - 4
            self.counter = (self.counter + 1) & 0xF
            out += transport_packet(data[:size], counter=self.counter, first=first)
            data, first = data[size:], False
        return out


def stream() -> TransportStream:
    found = TransportStream()
    found.follow(0x100, "h264")
    return found


def additions(transport: TransportStream, data: bytes) -> int:
    """How many packets were added."""
    return (len(transport.feed(data, 1)) - len(data)) // PACKET_BYTES


def test_the_end_of_a_frame_is_said_once_frames_have_ended_as_expected():
    transport, frames = stream(), Handmade()
    added = [additions(transport, frames.pes(b"s" * 500)) for _ in range(20)]
    assert added == [0] * 12 + [0] + [2] * 7 or added == [0] * 12 + [2] * 8


def test_who_fills_up_packets_within_frames_is_left_to_libav():
    transport, frames = stream(), Handmade()
    for _ in range(20):
        transport.feed(frames.pes(b"s" * 500), 1)
    transport.feed(frames.pes(b"s" * 500, cut_at=100), 1)
    assert [additions(transport, frames.pes(b"s" * 500)) for _ in range(20)] == [0] * 20


def test_who_spreads_a_frame_over_several_pes_packets_is_left_to_libav():
    transport, frames = stream(), Handmade()
    for _ in range(10):
        assert additions(transport, frames.pes(b"s" * 500)) == 0
        assert additions(transport, frames.pes(b"s" * 500, first_slice=False)) == 0


def test_a_frame_that_fills_its_packets_ends_where_the_next_begins():
    transport, frames = stream(), Handmade()
    for _ in range(20):
        transport.feed(frames.pes(b"s" * 500), 1)
    exact = frames.pes(b"s" * (3 * (PACKET_BYTES - 4) - 9 - 5 - 5))
    assert len(exact) == 3 * PACKET_BYTES
    assert exact[-PACKET_BYTES:][3] & 0x20 == 0, "nothing is filled up"
    assert additions(transport, exact) == 0
    assert additions(transport, frames.pes(b"s" * 500)) == 4


def test_lost_packets_take_nothing_away():
    transport, frames = stream(), Handmade()
    for _ in range(20):
        transport.feed(frames.pes(b"s" * 500), 1)
    before, cut_off = frames.pes(b"s" * 500), frames.pes(b"s" * 500)
    transport.feed(before, 1)
    transport.feed(cut_off[PACKET_BYTES:], 1)  # its beginning is lost
    assert additions(transport, frames.pes(b"s" * 500)) == 2


@pytest.mark.parametrize("data", [b"x" * 4000, b"\x47" * 100, b"", bytes(188 * 3)])
def test_what_is_no_transport_stream_is_passed_on_as_it_is(data):
    transport = stream()
    assert b"".join(transport.feed(data[at : at + 500], 1) for at in range(0, len(data), 500)) in (
        data,
        data[: len(data) // PACKET_BYTES * PACKET_BYTES],
    )


@pytest.mark.parametrize("step", [PACKET_BYTES, 1000, 7])
def test_a_segment_tells_when_each_picture_came(step):
    arrivals, frames = Arrivals(), Handmade()
    data = b"".join(frames.pes(b"s" * 500) for _ in range(5))
    segment = Segment(arrivals)
    for at in range(0, len(data), step):
        segment.feed(data[at : at + step], at)
    frame_bytes = len(data) // 5
    for number in range(5):
        arrival = arrivals.find((number + 1) * 3600 + 2**33)
        assert arrival is not None
        assert abs(arrival - number * frame_bytes) <= PACKET_BYTES + step
    assert arrivals.find(6 * 3600) is None


def test_a_segment_of_another_format_tells_nothing():
    arrivals = Arrivals()
    segment = Segment(arrivals)
    for _ in range(3):
        segment.feed(b"\x47" + b"moof" * 500, 1)
    assert arrivals.find(0) is None


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_mark_is_found_again_and_only_ours(codec):
    ends = FrameEnds(codec)
    packets = []
    for number in range(3):
        filler, _ = ends.units(FrameEnd(arrival_ns=number, pts=number))
        packets.append(av.Packet(b"frame" + filler + b"\0"))
    assert [ends.find(packet).arrival_ns for packet in reversed(packets)] == [2, 1, 0]
    assert ends.find(packets[0]) is None
    assert ends.find(av.Packet(b"frame livesr-end:zzzzzzzz")) is None
    assert ends.find(av.Packet(b"f")) is None


@pytest.mark.parametrize(
    ("codec", "unit", "begins"),
    [
        ("h264", "09f0aa", True),
        ("h264", "6764aa", True),
        ("h264", "65b8aa", True),
        ("h264", "4138aa", False),
        ("h264", "0cffff", False),
        ("hevc", "460150", True),
        ("hevc", "4001aa", True),
        ("hevc", "2601af", True),
        ("hevc", "26012f", False),
    ],
)
def test_where_a_picture_begins(codec, unit, begins):
    for start in (b"\0\0\1", b"\0\0\0\1"):
        assert begins_picture(codec, start + bytes.fromhex(unit)) is begins
    assert not begins_picture(codec, b"\0\0\0\0\1" + bytes.fromhex(unit))
