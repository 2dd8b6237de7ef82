"""Clips through decoder, engine and encoder as a worker has them, and decoded again: on a GPU or a CPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np

from server.wire.logs import get_logger
from server.wire.messages import Opened, VideoPacket
from server.worker.encode.video import VideoPublisher
from server.worker.ingest.container import find_tracks, tracks_of
from server.worker.ingest.source import Times
from server.worker.process.decode import PictureDecoder
from server.worker.process.picture import Picture
from server.worker.process.pipeline import Pipeline
from server.worker.process.supply import LoadEngine

LOG = get_logger("test")


@dataclass(frozen=True)
class Played:
    opened: list[Opened]
    frames: list[np.ndarray]  # yuv420p: luma, then U, then V


def pictures(path: Path, put: Callable[[Picture], None], *, on_gpu: bool) -> None:
    with av.open(str(path)) as container:
        video, _ = find_tracks(container)
        decoder = PictureDecoder(
            tracks_of(video, None),
            max_size=(4096, 4096),
            stamp=lambda pts, duration, time_base, _: (round(pts * time_base * Fraction(90_000)), 3600),
            on_drop=lambda reason: None,
            log=LOG,
            on_gpu=on_gpu,
        )
        for packet in container.demux(video):
            for picture in decoder.decode(packet, Times.at(1)):
                put(picture)


def play(clips: Sequence[Path], load: LoadEngine, *, encoder: str, on_gpu: bool, lanes: int = 2) -> Played:
    """The clips one after the other, as a source that changes."""
    sent: list[object] = []
    publisher = VideoPublisher(
        encoder=encoder, preset="ultrafast", bitrate_bps=20_000_000, keyframe_interval_s=10.0,
        send=sent.append, audio_format=lambda: None, log=LOG,
    )  # fmt: skip

    def produce(put: Callable[[Picture], None]) -> None:
        for clip in clips:
            pictures(clip, put, on_gpu=on_gpu)

    pipeline = Pipeline(
        produce=produce, load=load, lanes=lanes, consume=publisher.publish, on_drop=None, log=LOG
    )
    pipeline.start()
    pipeline.join(300)
    publisher.close()
    decoder = av.CodecContext.create("h264", "r")
    payloads = [message.payload for message in sent if isinstance(message, VideoPacket)]
    decoded = [frame for payload in payloads for frame in decoder.decode(av.Packet(payload))]
    decoded += decoder.decode(None)
    return Played(
        opened=[message for message in sent if isinstance(message, Opened)],
        frames=[frame.to_ndarray() for frame in decoded],
    )


def worst_error(played: Played, expected: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean error of a plane in code values, for the worst frame of each plane."""
    assert len(played.frames) == len(expected)
    errors = dict.fromkeys("yuv", 0.0)
    for got, wanted in zip(played.frames, expected, strict=True):
        assert got.shape == wanted.shape
        height = got.shape[0] * 2 // 3
        u_end = height + height // 4
        for name, rows in (("y", slice(0, height)), ("u", slice(height, u_end)), ("v", slice(u_end, None))):
            error = np.abs(got[rows].astype(np.int16) - wanted[rows]).mean()
            errors[name] = max(errors[name], float(error))
    return errors


def expected_frames(clips: Sequence[Path], load: LoadEngine) -> list[np.ndarray]:
    """What the engine makes of the CPU's pictures, before any encoder."""
    frames: list[np.ndarray] = []
    lane_for = cache(lambda width, height, colour: load(width, height, colour).lane())

    def take(picture: Picture) -> None:
        lane = lane_for(picture.format.width, picture.format.height, picture.format.colour)
        lane.submit(picture.planes)
        out = lane.wait()
        width = out.y.shape[1]
        planes = (out.y, out.u, out.v)
        frames.append(np.concatenate([plane.reshape(-1, width).copy() for plane in planes]))

    for clip in clips:
        pictures(clip, take, on_gpu=False)
    return frames
