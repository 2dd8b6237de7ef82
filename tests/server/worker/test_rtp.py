"""RTP frame by frame: its end is said where the marker tells it, and never where a marker has lied."""

import av
import pytest

from server.worker.ingest.rtp import RtpStream


class Server:
    """Frames of several packets in one RTSP connection, and the answers between them."""

    def __init__(self, channel: int = 0, payload_type: int = 96) -> None:
        self._channel = channel
        self._payload_type = payload_type
        self._number = 0

    def packet(self, time: int, *, marker: bool, payload: bytes = b"\x41slice") -> bytes:
        self._number += 1
        head = bytes([0x80, marker << 7 | self._payload_type]) + self._number.to_bytes(2)
        data = head + time.to_bytes(4) + b"SSRC" + payload
        return b"$" + bytes([self._channel]) + len(data).to_bytes(2) + data

    def frame(self, time: int) -> bytes:
        return self.packet(time, marker=False) + self.packet(time, marker=True)


def stream(codec: str = "h264", track: int = 0) -> RtpStream:
    found = RtpStream()
    found.follow(track, codec)
    return found


def added(rtp: RtpStream, data: bytes, arrival_ns: int = 1) -> bytes:
    """What was put in behind the data."""
    out = rtp.feed(data, arrival_ns)
    assert out.startswith(data)
    return out[len(data) :]


def trusted(codec: str = "h264") -> tuple[RtpStream, Server]:
    rtp, server = stream(codec), Server()
    for time in range(20):
        rtp.feed(server.frame(time * 3600), 1)
    return rtp, server


def test_the_end_of_a_frame_is_said_once_markers_have_proved_right():
    rtp, server = stream(), Server()
    ends = [bool(added(rtp, server.frame(time * 3600))) for time in range(20)]
    assert ends == [False] * 12 + [True] * 8


@pytest.mark.parametrize(
    ("codec", "aggregation", "delimiter"),
    [("h264", b"\x78", b"\x09\xf0"), ("hevc", b"\x60\1", b"\x46\1\x50")],
)
def test_the_end_comes_as_one_packet_with_the_number_of_the_last(codec, aggregation, delimiter):
    rtp, server = trusted(codec)
    frame = server.frame(100_000)
    end = added(rtp, frame)
    assert int.from_bytes(end[2:4]) == len(end) - 4
    last = frame[len(frame) // 2 :]
    assert end[6:16] == last[6:16], "number, time and sender"
    assert end[16:].startswith(aggregation)
    assert end.endswith(len(delimiter).to_bytes(2) + delimiter)


def test_markers_within_a_frame_leave_it_to_libav():
    rtp, server = trusted()
    rtp.feed(server.packet(100_000, marker=True), 1)
    rtp.feed(server.packet(100_000, marker=True), 1)  # each slice has one
    assert not any(added(rtp, server.frame(200_000 + time * 3600)) for time in range(20))


@pytest.mark.parametrize(
    ("rtp", "server"),
    [
        (stream(track=1), Server(channel=0)),
        (stream(), Server(channel=1)),
        (stream(), Server(payload_type=33)),  # MPEG-TS in RTP
        (stream("vp8"), Server()),
        (RtpStream(), Server()),
    ],
)
def test_what_is_not_the_picture_is_left_as_it_is(rtp, server):
    assert not any(added(rtp, server.frame(time * 3600)) for time in range(30))


def test_a_connection_in_any_pieces_reads_the_same():
    answer = b"RTSP/1.0 200 OK\r\nCSeq: 5\r\nContent-Length: 4\r\n\r\n$abc"
    server = Server()
    data = b"".join(server.frame(time * 3600) + answer for time in range(30))
    whole = stream().feed(data, 1)
    rtp = stream()
    assert b"".join(rtp.feed(data[at : at + 7], 1) for at in range(0, len(data), 7)) == whole
    assert len(whole) > len(data)


@pytest.mark.parametrize(
    "data", [b"x" * (1 << 17), b"RTSP/1.0 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"]
)
def test_what_is_no_rtsp_is_passed_on(data):
    rtp = stream()
    assert rtp.feed(data, 1) == data
    assert rtp.feed(b"$", 1) == b"$"


def test_a_frame_has_its_own_time_again_and_its_arrival():
    rtp, server = stream(), Server()
    ends = [added(rtp, server.frame(time), arrival_ns=time) for time in range(2**32 - 13 * 3600, 2**32, 3600)]
    ends += [added(rtp, server.frame(time), arrival_ns=time + 1) for time in (0, 7200, 3600)]
    assert [bool(end) for end in ends] == [False] * 12 + [True] * 4

    def given(end: bytes, pts: int) -> av.Packet:
        """As libav gives it: with the units of the end but the last, and the time of the frame before."""
        packet = av.Packet(b"slices\0\0\0\1" + end[end.index(b"\x0c") :].partition(b"\0\2\x09")[0])
        packet.pts = pts
        return packet

    stamped = []
    for end, libavs in zip(ends[12:], (1000, 1000, 4600, 11800), strict=True):
        packet = given(end, libavs)
        arrival_ns = rtp.stamp(packet, video=True)
        stamped.append((packet.pts, arrival_ns))
    assert stamped == [(1000, 2**32 - 3600), (4600, 1), (11800, 7201), (8200, 3601)]


class Given:
    """A packet as libav gives it."""

    def __init__(self, pts: int | None) -> None:
        self.pts = pts


def test_frames_of_other_codecs_are_known_by_their_timestamps():
    rtp, server = RtpStream(), Server(channel=2)
    frames = [(4500 * i + (1 << 32) - 9000) % (1 << 32) for i in range(8)]
    for i, time in enumerate(frames[:3]):
        frame = server.frame(time)
        assert rtp.feed(frame, i) == frame
    rtp.follow(1, "vp8")  # libav has read three by then
    assert rtp.stamp(Given(None), video=True) == 0, "AV1's first has no timestamp"
    assert rtp.stamp(Given(4500), video=True) == 1
    assert rtp.stamp(Given(4500), video=False) is None
    for i, time in enumerate(frames[3:], 3):
        rtp.feed(server.frame(time), i)
    assert rtp.stamp(Given(9030), video=True) == 2, "synchronised by a little"
    assert rtp.stamp(Given(18_030), video=True) == 4, "libav has passed over one"
    assert rtp.stamp(Given(1_000_000), video=True) == 5, "synchronised anew"
    assert rtp.stamp(Given(1_004_500), video=True) == 6
    assert rtp.stamp(Given(1_009_000), video=True) == 7
    assert rtp.stamp(Given(1_013_500), video=True) is None
