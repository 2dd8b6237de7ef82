"""A viewer behind a bad network says what arrives, as browsers do, and holds pictures back as it is told."""

import asyncio
import random
import struct

import pytest

from loadtest.arrivals import Arrivals
from loadtest.network import Playout, _watch, freezes
from loadtest.relay import Relay
from server.gateway.webrtc.feedback import split_feedback
from tests.server.gateway.scripted_gateway import gateway, loopback, until  # noqa: F401
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement


def packet(number: int, delay_s: float = 0.0) -> bytes:
    """RTP with a transport-wide number and a playout delay."""
    elements = bytes([13 << 4 | 1]) + struct.pack("!H", number % (1 << 16))
    elements += bytes([14 << 4 | 2]) + (round(delay_s * 100) << 12 | 1000).to_bytes(3, "big")
    elements += bytes(-len(elements) % 4)
    header = struct.pack("!BBHII", 0x90, 96, 1, 2, 0xABCD)
    return header + struct.pack("!HH", 0xBEDE, len(elements) // 4) + elements + b"payload"


def test_feedback_says_what_has_come_and_when():
    arrivals, draw = Arrivals(), random.Random(1)
    said: dict[int, float | None] = {}
    came = {}
    at_s = 1234.5
    for number in range(65_400, 65_400 + 400):  # the numbers wrap
        at_s += draw.uniform(0, 0.03)
        if draw.random() > 0.2:
            came[number] = at_s
            arrivals.packet(packet(number), at_s)
        if number % 23 == 0 and (sent := arrivals.feedback()) is not None:
            assert struct.unpack_from("!I", sent, 8) == (0xABCD,)
            ([heard], rest) = split_feedback(sent)
            assert rest == b""
            first = number + (heard.first - number + 32768) % 65536 - 32768
            said |= dict(enumerate(heard.at_s, first))
    assert len(said) > 350
    for number, heard_s in said.items():
        assert (heard_s is None) == (number not in came)
        if heard_s is not None:
            assert heard_s == pytest.approx(came[number], abs=0.001)


def test_what_comes_late_is_shown_smoothly_where_the_server_asks_for_patience():
    def frozen(hold_s: float) -> list[float]:
        playout = Playout()
        came_s = [n * 0.04 + (0.3 if n % 20 == 19 else 0.0) for n in range(100)]
        return freezes([playout.shown_s(n * 3600, at_s, hold_s) for n, at_s in enumerate(came_s)])

    assert len(frozen(0.0)) == 5
    assert frozen(0.35) == []


async def test_the_server_hears_what_arrives_and_asks_for_patience():
    placement = ScriptedPlacement(Script(width=320, height=240, noise_bps=500_000, audio=False))
    async with gateway(placement) as served:
        await served.in_state("running")
        with Relay(loss=0.1, rtt_s=0.04) as relay:
            watching = asyncio.create_task(_watch(served.base + "/", "demo", relay, 5.0, None))

            def hears() -> bool:
                return any(peer.path.delivered_bps and peer.path.hold_s for peer in served.peers())

            await until(hears, "the server knows what arrives, and that some is lost")
            report = await watching
        assert report.frames > 50
