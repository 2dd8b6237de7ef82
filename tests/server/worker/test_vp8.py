"""VP8 beside H.264: the same pictures at the same times, and a key frame where that has one."""

import threading
from dataclasses import replace

import av
import pytest

from server.wire.logs import get_logger
from server.wire.messages import VideoPacket
from server.worker.encode.video import VideoPublisher
from server.worker.encode.vp8 import Vp8Encoder
from server.worker.ingest.synthetic import read_frame_number
from server.worker.process.picture import plane_view
from server.worker.process.ring import Upscaled
from tests.server.worker.small_engine import DoublingEngine
from tests.server.worker.test_encode import FORMAT
from tests.server.worker.test_pipeline import picture

LOG = get_logger("test")
BOTH = ("upscaled", "upscaled-vp8", "source-vp8")


def test_vp8_is_made_while_it_is_watched_with_the_pictures_and_key_frames_of_h264():
    sent = []
    publisher = VideoPublisher(
        encoder="libx264", preset="ultrafast", bitrate_bps=2_000_000, keyframe_interval_s=1.0,
        renditions=("upscaled", "source"), send=sent.append, audio_format=lambda: None, log=LOG,
    )  # fmt: skip
    spec = DoublingEngine(160, 96).spec

    def show(numbers: range) -> dict[str, list[VideoPacket]]:
        sent.clear()
        for number in numbers:
            one = picture(number)
            large = one.frame.reformat(width=320, height=192)
            publisher.publish(
                Upscaled(picture=one, frame=large, spec=spec, taken_ns=0, upscaled_ns=0, level=0)
            )
        packets = [m for m in sent if isinstance(m, VideoPacket)]
        return {name: [p for p in packets if p.rendition == name] for name in (*BOTH, "source")}

    publisher.watch(("upscaled",))
    assert not show(range(5))["upscaled-vp8"], "nobody needs it"
    publisher.watch(BOTH)
    first = show(range(5, 40))
    publisher.request_keyframe()
    second = show(range(40, 60))
    publisher.watch(("upscaled",))
    assert not show(range(60, 65))["upscaled-vp8"]
    publisher.close()

    assert not first["source"], "only what is watched is encoded"
    shown = {name: first[name] + second[name] for name in BOTH}
    facts = [[(p.pts, p.duration, p.keyframe, p.opening) for p in shown[name]] for name in BOTH]
    assert facts[0] == facts[1] == facts[2]
    keyframes = [p.pts // 3600 for p in shown["upscaled"] if p.keyframe]
    assert keyframes == [5, 30, 40], "as it begins, when it is due, and when asked for"
    for name, scale in (("upscaled-vp8", 2), ("source-vp8", 1)):
        decoder = av.CodecContext.create("vp8", "r")
        frames = [frame for p in shown[name] for frame in decoder.decode(av.Packet(p.payload))]
        assert [(f.width, f.height) for f in frames] == [(160 * scale, 96 * scale)] * 55
        numbers = [read_frame_number(plane_view(frame, 0), scale=scale) for frame in frames]
        assert numbers == list(range(5, 60))
        kinds = [p.payload[0] & 1 == 0 for p in shown[name]]
        assert kinds == [p.keyframe for p in shown[name]], "key frames of VP8, by its own word"


def test_a_key_frame_that_is_asked_for_while_a_frame_is_encoded_comes_next():
    class Late(threading.Event):
        """Another thread asks just after the encoder has looked."""

        def is_set(self) -> bool:
            asked = super().is_set()
            self.set()
            return asked

    encoder = Vp8Encoder(replace(FORMAT, encoder="libvpx"))
    frame = av.VideoFrame(FORMAT.width, FORMAT.height, "yuv420p")
    encoder.encode(frame, 0)
    encoder._requested = Late()
    keyframes = [packet.keyframe for pts in (3600, 7200) for packet in encoder.encode(frame, pts)]
    encoder.close()
    assert keyframes == [False, True]


@pytest.mark.parametrize("bitrate_bps", [300_000, 1_000_000])
def test_vp8_keeps_to_its_bitrate_and_drops_nothing(bitrate_bps):
    sent = []
    publisher = VideoPublisher(
        encoder="libx264", preset="ultrafast", bitrate_bps=bitrate_bps, keyframe_interval_s=10.0,
        renditions=("upscaled",), send=sent.append, audio_format=lambda: None, log=LOG,
    )  # fmt: skip
    publisher.watch(("upscaled", "upscaled-vp8"))
    spec = DoublingEngine(320, 180).spec
    for number in range(100):
        one = replace(picture(number * 7, 320, 180), pts=number * 3600)  # everything moves
        large = one.frame.reformat(width=640, height=360)
        publisher.publish(Upscaled(picture=one, frame=large, spec=spec, taken_ns=0, upscaled_ns=0, level=0))
    publisher.close()
    vp8 = [m for m in sent if isinstance(m, VideoPacket) and m.rendition == "upscaled-vp8"]
    assert len(vp8) == 100
    assert sum(len(p.payload) for p in vp8) * 8 * 25 / 100 < 1.5 * bitrate_bps
