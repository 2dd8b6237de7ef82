"""What a rendition takes of a network, by which it is chosen: measured, or foreseen where it isn't made."""

import pytest
from msgspec.structs import replace

from server.gateway.fanout.keyframes import KeyframeRequests
from server.gateway.webrtc.outputs import ViewerOutputs
from tests.server.gateway.hls_media import video
from tests.server.gateway.scripted_media import FRAME_TICKS, opened


def test_a_rendition_that_nobody_watches_is_reckoned_from_the_upscaled_one():
    outputs = ViewerOutputs(
        ("upscaled", "90p", "source"),
        feedback_keyframe_every_s=1.0,
        keyframes=KeyframeRequests(lambda: None),
        on_slow_viewer=lambda count: None,
        on_joined=lambda renditions: None,
    )
    assert outputs.bitrate_bps("90p") == 0.0
    outputs.opened(opened())
    capped = outputs.bitrate_bps("90p")
    assert 0 < capped <= 400_000

    def run(first: int, upscaled: int, smaller: int = 0) -> None:
        for number in range(first * 25, (first + 10) * 25):
            packet = video(number * FRAME_TICKS, bytes(upscaled), keyframe=False)
            outputs.video(packet)
            if smaller:
                outputs.video(replace(packet, rendition="90p", payload=bytes(smaller)))

    run(0, 1000)
    assert outputs.bitrate_bps("upscaled") == pytest.approx(200_000, rel=0.05)
    foreseen = outputs.bitrate_bps("90p")
    assert 0.5 * 200_000 < foreseen < 0.75 * 200_000, "more than its share of pixels, less than the whole"
    run(10, 1000, 300)
    assert outputs.bitrate_bps("90p") == pytest.approx(60_000, rel=0.05)
    run(20, 2000)
    assert outputs.bitrate_bps("90p") == pytest.approx(2 * foreseen, rel=0.1), "of what was, nobody knows"
