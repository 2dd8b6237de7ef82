"""What one viewer's feedback may cause: resends within a share of the bitrate, a few key frames."""

import asyncio
import struct
import time

from aiortc.rtp import RTCP_PSFB_FIR, RtcpPsfbPacket
from aiortc.sdp import SessionDescription

from server.gateway.fanout.fanout import KEYFRAME_EVERY_S, KEYFRAMES_AT_ONCE
from server.gateway.webrtc.resend import RESERVE_BYTES, SHARE, Resends, TooLossy
from tests.server.gateway.scripted_gateway import Viewer, gateway, loopback, until  # noqa: F401
from tests.server.gateway.scripted_media import FPS
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement
from tests.server.gateway.slow_link import SlowViewer

PAYLOAD = bytes(1000)


def sent(count: int, first: int = 0) -> Resends:
    resends = Resends()
    for number in range(first, first + count):
        resends.sent(number & 0xFFFF, timestamp=0, payloads=[PAYLOAD], ends=False)
    return resends


def test_a_packet_comes_again_once_per_round_trip():
    resends = sent(10)
    for _ in range(20):
        resends.measured(0.05)
    assert [p.sequence for p in resends.lost([3, 3, 4, 3], 1.0)] == [3, 4]
    assert resends.lost([3, 4], 1.04) == []
    assert [p.sequence for p in resends.lost([3, 4], 1.06)] == [3, 4]


def test_numbers_that_were_never_sent_or_are_long_gone_are_passed_over():
    resends = sent(3000)
    assert resends.lost([5, 40_000], 1.0) == []


def test_a_nack_across_the_wrap_finds_its_packets():
    resends = sent(4, first=65_534)
    assert [p.sequence for p in resends.lost([65_535, 65_536, 65_537], 1.0)] == [65_535, 0, 1]


def test_resends_stay_within_their_share_of_what_is_sent():
    resends, number, again = sent(0), 0, 0
    while number < 10_000:
        for _ in range(10):
            resends.sent(number, timestamp=0, payloads=[PAYLOAD], ends=False)
            number += 1
        try:
            again += len(resends.lost(range(number - 4, number), number / 100))
        except TooLossy:
            break
    assert 0 < again * len(PAYLOAD) <= RESERVE_BYTES + SHARE * number * len(PAYLOAD)
    assert number < 10_000


def test_a_fifth_lost_is_repaired_for_ever():
    resends = sent(0)
    for number in range(20_000):
        resends.sent(number & 0xFFFF, timestamp=0, payloads=[PAYLOAD], ends=False)
        if number % 5 == 0:
            assert resends.lost([number & 0xFFFF], number / 400)


async def test_nacks_of_everything_cause_no_more_than_the_reserve_and_the_share():
    placement = ScriptedPlacement(Script(width=640, height=480, noise_bps=4_000_000, audio=False))
    async with gateway(placement) as served, SlowViewer(served, 1e9) as viewer:
        await viewer.sees(2 * FPS)
        receiver = viewer.pc.getReceivers()[0]
        ssrc = SessionDescription.parse(viewer.response.text).media[0].ssrc[0].ssrc
        # 320 entries of 17 numbers each, among them every packet that may still be there.
        oldest = receiver._RTCRtpReceiver__nack_generator.max_seq - 5_440
        entries = b"".join(struct.pack("!HH", (oldest + 17 * i) & 0xFFFF, 0xFFFF) for i in range(320))
        packet = struct.pack("!BBH", 0x81, 205, 322) + struct.pack("!II", 1, ssrc) + entries
        assert len(packet) == 1292
        taken, made = viewer.link.bytes_in, served.worker.frames
        for frame in range(FPS):
            await receiver.transport._send_rtp(packet)
            await until(lambda frame=frame: served.worker.frames > made + frame, "a frame")
        elapsed_s = (served.worker.frames - made) / FPS
        assert viewer.link.bytes_in - taken < RESERVE_BYTES + (1.5 + SHARE) * 4_000_000 / 8 * elapsed_s


async def test_a_link_that_is_too_slow_does_not_set_off_a_storm():
    placement = ScriptedPlacement(Script(width=320, height=240, noise_bps=3_400_000, audio=False))
    async with gateway(placement) as served, SlowViewer(served, 3_000_000) as viewer:
        await viewer.sees(1)
        made, seen, taken, from_s = (
            served.worker.frames,
            len(viewer.frames[0]),
            viewer.link.bytes_in,
            time.monotonic(),
        )
        await until(lambda: served.worker.frames >= made + 12 * FPS, "12 s of frames")
        sent_bps = (viewer.link.bytes_in - taken) * 8 / (time.monotonic() - from_s)
        share = (len(viewer.frames[0]) - seen) / (served.worker.frames - made)
        assert sent_bps < 3_400_000 * (1 + SHARE) * 1.1
        assert share > 0.05  # of what it could show, where it says little of what arrives


async def test_one_viewer_gets_few_key_frames_for_many_requests():
    async with gateway() as served, Viewer(served) as viewer:
        await viewer.sees(5)
        ssrc = SessionDescription.parse(viewer.response.text).media[0].ssrc[0].ssrc
        receiver, before = viewer.pc.getReceivers()[0], len(served.worker.keyframe_requests)
        from_s = time.monotonic()
        for _ in range(6 * FPS):
            await receiver._send_rtcp_pli(ssrc)
            await viewer.sees(len(viewer.frames[0]) + 1)
        asked, elapsed_s = len(served.worker.keyframe_requests) - before, time.monotonic() - from_s
        assert 0 < asked <= KEYFRAMES_AT_ONCE + elapsed_s / KEYFRAME_EVERY_S


async def test_feedback_beyond_what_a_viewer_has_to_say_is_passed_over():
    """Each of these takes 1.6 ms: half a second in one go."""
    async with gateway() as served, Viewer(served) as viewer:
        await viewer.sees(5)
        ssrc = SessionDescription.parse(viewer.response.text).media[0].ssrc[0].ssrc
        packet = struct.pack("!BBHII", 0x81, 205, 322, 1, ssrc) + struct.pack("!HH", 0, 0xFFFF) * 320
        for _ in range(300):
            await viewer.pc.getReceivers()[0].transport._send_rtp(packet)
            await asyncio.sleep(0.001)

        async def passed_over() -> bool:
            refused = (await served.metrics()).get('livesr_refused_total{reason="feedback"}', 0)
            return refused > 200  # of those that got through

        await until(passed_over, "they are passed over", 10)
        await viewer.sees(len(viewer.frames[0]) + 5)


async def test_a_full_intra_request_is_a_request():
    placement = ScriptedPlacement(Script(gop_s=10.0))
    async with gateway(placement, hls={"segment_s": 10.0}) as served, Viewer(served) as viewer:
        await viewer.sees(2 * FPS)
        before = len(served.worker.keyframe_requests)
        ssrc = SessionDescription.parse(viewer.response.text).media[0].ssrc[0].ssrc
        entry = struct.pack("!IB3x", ssrc, 1)
        request = RtcpPsfbPacket(fmt=RTCP_PSFB_FIR, ssrc=1, media_ssrc=0, fci=entry)
        await viewer.pc.getReceivers()[0].transport._send_rtp(bytes(request))
        seen = len(viewer.frames[0])
        await viewer.sees(seen + FPS)
        assert len(served.worker.keyframe_requests) == before + 1
