"""What is done in a process of its own that finds the driver of this folder: `python -m … SCENE` prints what
came of it as JSON."""

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from engine.frame import DeviceFrame
from server.wire.logs import get_logger, log_to_stderr
from server.wire.messages import Opened, VideoPacket
from server.worker.encode.h264 import EncoderFormat, H264Encoder, choose_encoder
from server.worker.encode.live_encoder import LiveEncoder
from server.worker.encode.video import VideoPublisher
from server.worker.process.lanes import SurfaceLane
from server.worker.process.nvdec import open_nvdec
from server.worker.process.picture import Picture, frame_from_planes
from server.worker.process.ring import Upscaled
from tests.driver.device_frames import surface
from tests.gpu.played import pictures as decoded
from tests.server.clips import write_clip
from tests.server.worker.small_engine import DoublingEngine
from tests.server.worker.test_encode import FORMAT
from tests.server.worker.test_pipeline import picture

LOG = get_logger("test")
WIDTH, HEIGHT = 854, 480


class Given:
    """A lane whose results are these surfaces."""

    def __init__(self, *surfaces: DeviceFrame) -> None:
        self._surfaces = list(surfaces)

    def wait(self) -> DeviceFrame:
        return self._surfaces.pop(0)


def noise(number: int, width: int = WIDTH, height: int = HEIGHT) -> VideoFrame:
    frame = VideoFrame(width, height, "yuv420p")
    rng = np.random.default_rng(number)
    for plane in frame.planes:
        plane.update(rng.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    return frame


def seen_by_nvenc(payload: bytes, frame: VideoFrame) -> bool:
    """Whether a packet of the driver has exactly the frame's samples."""
    nv12 = frame.reformat(format="nv12").to_ndarray()
    return payload[5:] == nv12.tobytes()


def form(width: int = WIDTH, height: int = HEIGHT) -> EncoderFormat:
    return replace(FORMAT, encoder="h264_nvenc", width=width, height=height)


def on_gpu(*frames: VideoFrame, pitch: int = 1024) -> list[VideoFrame]:
    lane = SurfaceLane(Given(*(surface(frame, pitch) for frame in frames)))
    return [lane.wait() for _ in frames]


def surfaces_and_host_frames() -> object:
    """A lane's surfaces, then a frame on the host as a slate or stand-in, then surfaces again."""
    frames = [noise(number) for number in range(4)]
    first, second, fourth = on_gpu(frames[0], frames[1], frames[3])
    encoder = H264Encoder(form(), surfaces=True)
    packets = [encoder.encode(one, 3600 * n) for n, one in enumerate((first, second, frames[2], fourth))]
    encoder.close()
    return {
        "same": [seen_by_nvenc(p.payload, frame) for [p], frame in zip(packets, frames, strict=True)],
        "keys": [p.keyframe for [p] in packets],
    }


def host_frames_first() -> object:
    """As with a stand-in before there is an engine."""
    frames = [noise(number) for number in range(3)]
    [last] = on_gpu(frames[2])
    encoder = H264Encoder(form())
    packets = [encoder.encode(one, 3600 * n) for n, one in enumerate((frames[0], frames[1], last))]
    encoder.close()
    return {
        "same": [seen_by_nvenc(p.payload, frame) for [p], frame in zip(packets, frames, strict=True)],
        "keys": [p.keyframe for [p] in packets],
    }


def two_streams() -> object:
    """Surfaces of two streams, each through its own lane to its own encoder."""
    for number in range(2):
        [frame] = on_gpu(noise(number))
        encoder = H264Encoder(form(), surfaces=True)
        encoder.encode(frame, 0)
    return None


def chosen() -> object:
    return choose_encoder("auto", "ultrafast", LOG)


def live(*sizes: tuple[int, int], frames: int = 2) -> object:
    """For frames of those sizes, each time: which encoder was at work, and whether it gave a key frame."""
    encoder, seen = LiveEncoder("upscaled", LOG), []
    for index, (width, height) in enumerate(sizes):
        for number in range(frames):
            wanted = form(width, height)
            [packet] = encoder.encode(noise(0, width, height), 3600 * (index * frames + number), wanted)
            seen.append([encoder.format.encoder, packet.keyframe])
    encoder.close()
    return seen


def sizes() -> object:
    return live((640, 360), (4352, 640), (640, 360), (128, 48))


def breaks() -> object:
    return live((640, 360), (480, 270), frames=3)


def breaks_on_gpu() -> object:
    """What x264 makes of the very surface at which NVENC breaks."""
    flat = [frame_from_planes(picture(number).planes, 160, 96) for number in range(3)]
    encoder, out = LiveEncoder("upscaled", LOG), []
    wanted = form(160, 96)
    for number, one in enumerate(on_gpu(*flat, pitch=256)):
        out += encoder.encode(one, 3600 * number, wanted)
    encoder.close()
    decoder = av.CodecContext.create("h264", "r")
    decoded = [f for p in out[1:] for f in decoder.decode(av.Packet(p.payload))] + decoder.decode(None)
    error = max(
        float(np.abs(a.to_ndarray().astype(int) - b.to_ndarray().astype(int)).mean())
        for a, b in zip(decoded, flat[1:], strict=True)
    )
    return {"frames": len(decoded), "error": error}


def published() -> object:
    """What the gateway hears of a stream whose NVENC breaks at its third picture."""
    sent: list[object] = []
    publisher = VideoPublisher(
        encoder="auto", preset="ultrafast", bitrate_bps=0, keyframe_interval_s=10.0,
        send=sent.append, audio_format=lambda: None, log=LOG,
    )  # fmt: skip
    publisher.watch(("upscaled",))
    for number in range(5):
        one = picture(number)
        spec = DoublingEngine(160, 96).spec
        publisher.publish(
            Upscaled(picture=one, frame=one.frame, spec=spec, level=0, taken_ns=number, upscaled_ns=number)
        )
    publisher.close()
    return [
        message.output.encoder if isinstance(message, Opened) else message.keyframe
        for message in sent
        if isinstance(message, Opened | VideoPacket)
    ]


def decoders() -> object:
    """Which of these NVDEC takes, or why not."""
    said = {}
    for codec, pixels, width in (
        ("h264", "yuv420p", 1920),
        ("h264", "yuv420p10le", 1920),
        ("hevc", "yuv420p10le", 1920),
        ("hevc", "yuv444p", 1920),
        ("libdav1d", "yuv420p", 1920),
        ("h264", "yuv420p", 8192),
    ):
        software = av.CodecContext.create(codec, "r")
        software.pix_fmt, software.width, software.height = pixels, width, 1080
        try:
            said[f"{codec} {pixels} {width}"] = "" if open_nvdec(software).is_hwaccel else "no acceleration"
        except LookupError as exc:
            said[f"{codec} {pixels} {width}"] = str(exc)
    return said


def av1_clip() -> object:
    """How many pictures of a clip come out, and whose they are."""
    pictures: list[Picture] = []
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / "clip.mp4", frames=5, codec="libsvtav1")
        decoded(clip, pictures.append, on_gpu=True)
    return [len(pictures), *{one.format.decoder for one in pictures}]


if __name__ == "__main__":
    log_to_stderr("json")
    scene: Callable[[], object] = globals()[sys.argv[1]]
    print(json.dumps(scene()))
