"""Renditions of one upscaled picture: their sizes, their order, and what they cost the governor."""

import time
from dataclasses import replace

import pytest

from server.wire.logs import get_logger
from server.wire.messages import Opened, VideoPacket
from server.worker.encode.renditions import rendition_sizes
from server.worker.encode.video import VideoPublisher
from server.worker.process.ring import Upscaled
from tests.server.worker.small_engine import DoublingEngine
from tests.server.worker.test_pipeline import picture

LOG = get_logger("test")


@pytest.mark.parametrize(
    ("upscaled", "source", "sizes"),
    [
        ((1920, 1080), (960, 540), {"upscaled": (1920, 1080), "720p": (1280, 720), "source": (960, 540)}),
        ((1440, 1080), (720, 540), {"upscaled": (1440, 1080), "720p": (960, 720), "source": (720, 540)}),
        ((1364, 766), (682, 383), {"upscaled": (1364, 766), "720p": (1282, 720), "source": (682, 382)}),
        ((1280, 720), (640, 360), {"upscaled": (1280, 720), "source": (640, 360)}),
        ((2880, 1620), (1440, 810), {"upscaled": (2880, 1620), "source": (1440, 810), "720p": (1280, 720)}),
    ],
)
def test_sizes_keep_the_shape_and_are_smaller_than_the_upscaled_one(upscaled, source, sizes):
    form = replace(picture(0).format, width=source[0], height=source[1])
    found = rendition_sizes(("720p", "source", "upscaled"), upscaled, form)
    assert list(found.items()) == list(sizes.items()), "the largest first"


@pytest.mark.parametrize("interval_s", [1.5, 5.0])
def test_between_the_pictures_of_a_slow_source_players_have_something_to_play(interval_s):
    sent = []
    publisher = VideoPublisher(
        encoder="libx264", preset="ultrafast", bitrate_bps=0, keyframe_interval_s=10.0, send=sent.append,
        audio_format=lambda: None, log=LOG,
    )  # fmt: skip
    publisher.watch(("upscaled",))
    one = replace(picture(0), duration=round(interval_s * 90_000))
    large = one.frame.reformat(width=320, height=192)
    spec = DoublingEngine(160, 96).spec
    publisher.publish(Upscaled(picture=one, frame=large, spec=spec, taken_ns=0, upscaled_ns=0, level=0))
    began_s = time.monotonic()
    while len(sent) < 6 and time.monotonic() - began_s < interval_s:
        publisher.idle()
        time.sleep(0.05)
    publisher.close()
    assert len([message for message in sent if isinstance(message, VideoPacket) and message.slate]) >= 3


def test_a_frames_latency_is_that_of_the_rendition_which_is_sent_last():
    sent, latencies_s = [], []
    publisher = VideoPublisher(
        encoder="libx264", preset="ultrafast", bitrate_bps=200_000, keyframe_interval_s=10.0,
        renditions=("upscaled", "90p", "source"), send=sent.append, audio_format=lambda: None, log=LOG,
        on_frame=lambda level, latency_s, lasts_s: latencies_s.append(latency_s),
    )  # fmt: skip
    publisher.watch(("upscaled", "90p", "source"))
    spec = DoublingEngine(160, 96).spec
    pictures = [picture(number) for number in range(4)]
    for one in pictures:
        large = one.frame.reformat(width=320, height=192)
        publisher.publish(
            Upscaled(
                picture=one,
                frame=large,
                spec=spec,
                taken_ns=0,
                upscaled_ns=0,
                level=0,
            )
        )
    publisher.close()
    packets = [m for m in sent if isinstance(m, VideoPacket)]
    assert len(packets) == 12
    last_ns = [max(p.sent_ns for p in packets if p.pts == one) for one in {p.pts: None for p in packets}]
    assert latencies_s == [(ns - one.demuxed_ns) / 1e9 for ns, one in zip(last_ns, pictures, strict=True)]
    [opened] = [m for m in sent if isinstance(m, Opened)]
    assert {form.name: form.bitrate_bps for form in opened.renditions} == {
        "upscaled": 200_000, "source": 200_000, "90p": 200_000,
    }, "none takes more than was chosen for the largest"  # fmt: skip
