"""What a viewer's feedback says of its network, and what follows from it."""

import asyncio
import itertools
import random
import struct

import pytest

from server.gateway.fanout.fanout import Fanout, Feedback, SwitchingReader
from server.gateway.webrtc.choice import RenditionChoice
from server.gateway.webrtc.extensions import HeaderExtensions
from server.gateway.webrtc.feedback import Arrivals, parse, split_feedback
from server.gateway.webrtc.negotiate import PLAYOUT_DELAY_URI, parse_offer
from server.gateway.webrtc.path import Path
from server.gateway.webrtc.rtp import RtpFrame

REFERENCE = 0x000123
EPOCH_S = REFERENCE * 64e-3


def fci(first: int, count: int, chunks: list[int], deltas: bytes) -> bytes:
    return struct.pack(f"!HHI{len(chunks)}H", first, count, REFERENCE << 8, *chunks) + deltas


def test_feedback_of_every_kind_of_chunk_is_read():
    # A run of three that came, a vector of one bit (came, not), a vector of two bits (large, small, not).
    chunks = [0x2003, 0x8000 | 0b10_0000_0000_0000, 0xC000 | 0b10_01_00 << 8]
    deltas = bytes([4, 8, 12]) + bytes([0]) + struct.pack("!h", -40) + bytes([4])
    arrivals = parse(fci(65_534, 3 + 14 + 3, chunks, deltas))
    assert arrivals.first == 65_534
    came = [round((at_s - EPOCH_S) * 1000, 3) if at_s is not None else None for at_s in arrivals.at_s]
    assert came == [1.0, 3.0, 6.0, 6.0] + [None] * 13 + [-4.0, -3.0, None]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (bytes(7), "has 7 bytes"),
        (fci(0, 4097, [0x2000], b""), "of 4097 packets"),
        (fci(0, 15, [0x8000], b""), "within its chunks"),
        (fci(0, 3, [0x2003], b"\1"), "within its deltas"),
    ],
)
def test_feedback_that_breaks_off_is_an_error(broken, why):
    with pytest.raises(ValueError, match=why):
        parse(broken)


def test_feedback_is_taken_out_of_a_compound_packet():
    report = struct.pack("!BBHI", 0x80, 201, 1, 1)
    body = fci(7, 1, [0x2001], bytes([4, 0]))
    packet = struct.pack("!BBHII", 0x8F, 205, 2 + len(body) // 4, 1, 2) + body
    (arrivals,), rest = split_feedback(report + packet + report)
    assert (arrivals.first, len(arrivals.at_s)) == (7, 1)
    assert rest == report + report


class Network:
    """A bottleneck of so many bits a second with a queue of so many seconds, and loss by chance."""

    def __init__(
        self, rate_bps: float, *, loss: float = 0.0, queue_s: float = 0.3, rtt_s: float = 0.04
    ) -> None:
        self.rate_bps, self.loss, self.queue_s, self.rtt_s = rate_bps, loss, queue_s, rtt_s
        self.now_s = 1000.0
        self.path = Path()
        self._free_s = 0.0
        self._random = random.Random(1)
        self._reported: list[tuple[int, float | None]] = []
        self._next_report_s = 0.0

    def send(self, size: int) -> None:
        (number,) = self.path.sent([size], self.now_s)
        sent_s = max(self._free_s, self.now_s) + size * 8 / self.rate_bps
        if sent_s - self.now_s > self.queue_s or self._random.random() < self.loss:
            self._reported.append((number, None))
            return
        self._free_s = sent_s
        self._reported.append((number, sent_s + self.rtt_s / 2 - 900.0))  # by a clock of its own

    def run(self, seconds: float, bitrate_bps: float, each=lambda: None) -> None:
        """Sends packets of 1000 bytes at that rate, hears feedback each 50 ms."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.send(1000)
            if self.now_s >= self._next_report_s and self._reported:
                self._next_report_s = self.now_s + 0.05
                heard, self._reported = self._reported, []
                self.path.heard(Arrivals(heard[0][0], [at_s for _, at_s in heard]), self.now_s)
                each()
            self.now_s += 8000 / bitrate_bps

    @property
    def congested(self) -> bool:
        return self.path.congested(self.now_s)


def test_a_path_that_carries_what_is_sent_is_not_congested():
    network = Network(5e6)
    network.run(10, 3.4e6, each=lambda: None)
    assert not network.congested
    assert network.path.delivered_bps == pytest.approx(3.4e6, rel=0.1)
    assert network.path.sent_bps == pytest.approx(3.4e6, rel=0.1)
    assert network.path.queue_s < 0.01
    assert network.path.hold_s == 0


@pytest.mark.parametrize("queue_s", [0.03, 0.3, 2.0])
def test_a_path_that_carries_less_is_congested_soon_however_long_its_queue(queue_s):
    network = Network(1.5e6, queue_s=queue_s)
    network.run(1.5, 3.4e6)
    assert network.congested
    assert network.path.delivered_bps == pytest.approx(1.5e6, rel=0.15)


@pytest.mark.parametrize(("loss", "rounds"), [(0.05, 1), (0.12, 2)])
def test_loss_by_chance_is_no_congestion_but_pictures_are_held_back(loss, rounds):
    network = Network(5e6, loss=loss)
    congested = []
    network.path.measured(0.1)
    network.run(20, 3.4e6, each=lambda: congested.append(network.congested))
    assert not any(congested)
    assert network.path.loss == pytest.approx(loss, abs=0.05)
    assert network.path.hold_s == pytest.approx(rounds * 1.1 * network.path.rtt_s + 0.06)


def test_the_receivers_clock_may_wrap():
    path = Path()
    for index in range(40):
        (number,) = path.sent([1000], index * 0.01)
        at_s = (index * 0.01 - 0.2) % ((1 << 24) * 64e-3)
        path.heard(Arrivals(number, [at_s]), index * 0.01)
    assert path.queue_s < 0.001
    assert not path.congested(0.4)


def test_a_viewers_own_estimate_counts_where_something_is_lost():
    path = Path()
    for step in range(400):
        path.sent([1000], step * 0.005)
    path.estimate_bps = 1e6
    for step in range(20):
        path.reported_loss(0.0, 2 + step * 0.5)
    assert not path.congested(12)
    for step in range(20):
        path.reported_loss(0.1, 12 + step * 0.5)
    assert path.congested(22)


RATES_BPS = {"upscaled": 3.4e6, "720p": 2e6, "540p": 1.2e6, "source": 0.8e6}


class Viewer:
    """A choice between renditions on a simulated network, in simulated time."""

    def __init__(
        self, network: Network, monkeypatch: pytest.MonkeyPatch, renditions=("upscaled", "source")
    ) -> None:
        self.network = network
        self.switches: list[tuple[float, str]] = []
        monkeypatch.setattr("server.gateway.webrtc.choice.asyncio.sleep", self._sleep)
        self.choice = RenditionChoice(
            renditions,
            network.path,
            bitrate_bps=RATES_BPS.__getitem__,
            switch=lambda rendition, smaller: self.switches.append((network.now_s, rendition)),
            pad=self._pad,
            clock=lambda: network.now_s,
        )

    async def _pad(self, size: int) -> None:
        for _ in range(size // 1000):
            self.network.send(1000)

    async def _sleep(self, seconds: float) -> None:
        self.network.run(seconds, RATES_BPS[self.choice.rendition])

    async def watch(self, seconds: float) -> None:
        until_s = self.network.now_s + seconds
        while self.network.now_s < until_s:
            self.network.run(0.05, RATES_BPS[self.choice.rendition])
            self.choice.look()
            if self.choice._trial is not None:
                await self.choice._trial


async def test_a_viewer_gets_the_smaller_rendition_within_a_second_and_the_larger_again(monkeypatch):
    network = Network(1.5e6)
    viewer = Viewer(network, monkeypatch)
    start_s = network.now_s
    await viewer.watch(60)
    ((at_s, rendition),) = viewer.switches
    assert rendition == "source"
    assert at_s - start_s < 1.0
    assert "1.5 Mbit/s arrive" in viewer.choice.reason

    network.rate_bps, healed_s = 10e6, network.now_s
    await viewer.watch(15)
    assert [name for _, name in viewer.switches] == ["source", "upscaled"]
    assert viewer.switches[1][0] - healed_s < 15


async def test_of_many_renditions_a_viewer_gets_the_largest_that_fits_and_climbs_again(monkeypatch):
    network = Network(1.5e6)
    viewer = Viewer(network, monkeypatch, tuple(RATES_BPS))
    start_s = network.now_s
    await viewer.watch(60)
    assert [name for _, name in viewer.switches] == ["540p"], "and no other for the rest of the minute"
    assert viewer.switches[0][0] - start_s < 1.0

    network.rate_bps = 1.0e6
    await viewer.watch(10)
    assert viewer.choice.rendition == "source"

    network.rate_bps, healed_s = 10e6, network.now_s
    await viewer.watch(20)
    assert [name for _, name in viewer.switches[-3:]] == ["540p", "720p", "upscaled"]
    assert viewer.switches[-1][0] - healed_s < 20


async def test_a_trial_is_over_where_the_rendition_changes_meanwhile():
    choice = RenditionChoice(
        ("upscaled", "540p", "source"),
        Path(),
        bitrate_bps=lambda rendition: 1e6,
        switch=lambda rendition, smaller: None,
        pad=lambda size: asyncio.sleep(60),
        clock=lambda: 1000.0,
    )
    choice._change(1, "less arrives")
    choice._trial = trial = asyncio.create_task(choice._try_larger())
    await asyncio.sleep(0)
    choice._change(2, "less still")
    await asyncio.wait([trial], timeout=10)
    assert trial.cancelled()
    assert choice.rendition == "source"


async def test_a_trial_costs_the_picture_nothing(monkeypatch):
    network = Network(1.5e6)
    viewer = Viewer(network, monkeypatch)
    await viewer.watch(5)
    worst_s, lost = [], []
    for _ in range(60):
        await viewer.watch(1)
        worst_s.append(network.path.queue_s)
        lost.append(network.path.loss)
    assert max(worst_s) < 0.15
    assert max(lost) == 0


def frame(timestamp: int, keyframe: bool) -> RtpFrame:
    return RtpFrame(timestamp=timestamp, keyframe=keyframe, payloads=(b"x",))


async def test_a_reader_goes_on_with_the_other_rendition_from_its_key_frame_on():
    large, small = (Fanout(capacity=10, feedback=Feedback(1.0)) for _ in range(2))
    reader = SwitchingReader(large.join())
    large.publish(frame(1, True))
    assert reader.take().timestamp == 1
    reader.switch(small.join(), at_once=False)
    large.publish(frame(2, False))
    small.publish(frame(2, False))
    assert reader.take().timestamp == 2
    small.publish(frame(3, True))
    large.publish(frame(3, False))
    assert reader.take().keyframe
    assert len(large) == 0

    reader.switch(large.join(), at_once=True)
    told = []
    reader.listen(lambda: told.append(reader.take()))
    small.publish(frame(4, False))
    assert not told
    large.publish(frame(5, True))
    assert [one.timestamp for one in told] == [5]
    reader.close()
    assert (len(large), len(small)) == (0, 0)


OFFER = """v=0\r
o=- 1 2 IN IP4 127.0.0.1\r
s=-\r
t=0 0\r
a=group:BUNDLE 0\r
m=video 9 UDP/TLS/RTP/SAVPF 96\r
c=IN IP4 0.0.0.0\r
a=ice-ufrag:user\r
a=ice-pwd:passwordpasswordpassword\r
a=fingerprint:sha-256 {fingerprint}\r
a=setup:actpass\r
a=mid:0\r
a=recvonly\r
a=rtcp-mux\r
a=rtpmap:96 H264/90000\r
a=fmtp:96 packetization-mode=1;profile-level-id=42e01f\r
a=rtcp-fb:96 transport-cc\r
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r
a=extmap:2 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r
a=extmap:3 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r
a=extmap:4 {playout_delay}\r
""".format(fingerprint=":".join(["AB"] * 32), playout_delay=PLAYOUT_DELAY_URI)


def test_packets_carry_their_number_their_time_and_how_long_to_hold_pictures():
    extensions = HeaderExtensions(parse_offer(OFFER).lines[0])

    def elements(packet: bytes) -> dict[int, bytes]:
        profile, words = struct.unpack_from("!HH", packet)
        assert (profile, len(packet)) == (0xBEDE, 4 + 4 * words)
        found, at = {}, 4
        while at < len(packet):
            number, size = packet[at] >> 4, (packet[at] & 15) + 1
            if number:
                found[number] = packet[at + 1 : at + 1 + size]
            at += 1 + size if number else 1
        return found

    assert elements(extensions.of([0x1234], 2.5, 0.0)[0]) == {
        1: b"0",
        2: b"\x12\x34",
        3: int(2.5 * (1 << 18)).to_bytes(3, "big"),
    }
    assert elements(extensions.of([1], 2.5, 0.25)[0])[4] == (25 << 12 | 1000).to_bytes(3, "big")
    assert elements(extensions.of([1], 2.5, 0.0)[0])[4] == (1000).to_bytes(3, "big"), "it is taken back"


def test_numbers_of_packets_wrap():
    path = Path()
    numbers = path.sent([100] * 65_537, 0.0)
    assert numbers[-2:] == [65_535, 0]
    assert all(b == (a + 1) & 0xFFFF for a, b in itertools.pairwise(numbers))
