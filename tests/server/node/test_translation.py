"""Times of another clock as viewers get them: in order, whatever becomes of the estimate."""

import itertools
import random

import pytest

from server.gateway.placement.translation import Translation
from server.wire.hello import ClockTold
from server.wire.messages import AudioPacket, Trace, VideoPacket
from server.wire.offset import ClockJumped

AHEAD_NS = 5_000_000_000_000
TRACE = Trace(demux=0, decode=0, queue=0, upscale=0, encode=0)


def hear(translation: Translation, now_ns: int, there_ns: int, back_ns: int) -> None:
    heard_ns = now_ns + there_ns + AHEAD_NS
    told = ClockTold(asked_ns=now_ns, heard_ns=heard_ns, told_ns=heard_ns, at_work=True, idle_cores=0)
    translation.hear(told, now_ns + there_ns + back_ns)


def picture(at_ns: int, rendition: str, sent_ns: int | None = None) -> VideoPacket:
    return VideoPacket(
        rendition=rendition,
        pts=(at_ns + AHEAD_NS) * 9 // 100_000,
        duration=3600,
        keyframe=False,
        arrival_ns=at_ns + AHEAD_NS,
        sent_ns=(at_ns if sent_ns is None else sent_ns) + AHEAD_NS,
        trace=TRACE,
        payload=b"",
    )


def test_times_rise_and_renditions_agree_though_the_first_estimate_was_far_off():
    chance, translation = random.Random(5), Translation()
    hear(translation, 0, 400_000_000, 2_000_000)  # 0.2 s off, as it may be on a machine that is busy
    pictures, sounds = [], []
    for number in range(1, 2000):
        at_ns = number * 8_333_333
        if number % 12 == 0:
            hear(translation, at_ns, *(1_000_000 + int(chance.expovariate(1 / 4e6)) for _ in range(2)))
        shown = [translation.to_gateway(picture(at_ns, name), at_ns) for name in ("upscaled", "540p")]
        assert shown[0].pts == shown[1].pts
        pictures.append(shown[0])
        if number % 2 == 0:
            packet = AudioPacket(
                codec="aac", pts=(at_ns + AHEAD_NS) * 48 // 1_000_000, duration=800, payload=b""
            )
            sounds.append(translation.to_gateway(packet, at_ns).pts)
    assert all(a.pts < b.pts for a, b in itertools.pairwise(pictures))
    assert all(a < b for a, b in itertools.pairwise(sounds))
    assert abs(pictures[-1].pts - 1999 * 8_333_333 * 9 / 100_000) < 0.006 * 90_000
    assert all(
        picture.arrival_ns <= picture.sent_ns <= 8_333_333 * n for n, picture in enumerate(pictures, 1)
    )


@pytest.mark.parametrize("sent_s", [1.0, -40.0])
def test_a_frame_of_another_time_is_a_jump(sent_s: float):
    translation = Translation()
    hear(translation, 0, 1_000_000, 1_000_000)
    with pytest.raises(ClockJumped, match="a frame was sent"):
        translation.to_gateway(picture(0, "upscaled", sent_ns=round(sent_s * 1e9)), 0)
