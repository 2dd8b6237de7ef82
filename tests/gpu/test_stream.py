"""Whole streams on a real GPU: NVDEC, an engine and NVENC, the first thing that `make gpu-check` does.

Each says what it shows of faults that are easily made.
"""

import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from engine.frame import Colour, Engine, GpuEngine
from engine.load import load_engine
from engine.share import SharedEngine
from server.settings import DEFAULT_MODEL
from server.worker.encode.h264 import NVENC, X264, encoder_problem
from server.worker.process.supply import LoadEngine
from tests.conftest import not_done
from tests.gpu.played import Played, expected_frames, play, worst_error
from tests.server.clips import write_clip

Load = Callable[..., GpuEngine]
# Mean error of a plane: far above what an encoder of 20 Mbit/s takes off, far below that of other samples.
MOST = {"y": 4.0, "u": 4.0, "v": 4.0}
BATCH_WAIT_S = 0.003


def kept(load: Callable[..., Engine], *, batches: bool = False) -> LoadEngine:
    """One engine of each size for all streams, whose frames go through it in turns or in batches."""
    lock = threading.Lock()

    @cache
    def loaded(width: int, height: int, colour: Colour) -> SharedEngine | Engine:
        engine = load(width, height, colour=colour)
        return SharedEngine(engine) if batches else engine

    def locked(width: int, height: int, colour: Colour) -> Engine:
        with lock:
            engine = loaded(width, height, colour)
        return engine.join(BATCH_WAIT_S) if isinstance(engine, SharedEngine) else engine

    return locked


@pytest.fixture(params=[NVENC, X264])
def encoder(request: pytest.FixtureRequest) -> str:
    """x264 takes surfaces as well, by way of the host: some GPUs have no NVENC."""
    if reason := encoder_problem(request.param, "ultrafast"):
        not_done(f"{request.param}: {reason}")
    return request.param


def right(played: Played, expected: list[np.ndarray]) -> None:
    errors = worst_error(played, expected)
    assert all(errors[plane] < most for plane, most in MOST.items()), errors


def stayed_on_the_gpu(played: Played, encoder: str) -> None:
    seen = {(o.source.decoder, o.output.encoder, o.output.on_gpu) for o in played.opened}
    assert seen == {("nvdec", encoder, encoder == NVENC)}


@pytest.mark.gpu
@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (854, 480), (426, 240)])
def test_colours_are_right_from_nvdec_to_nvenc(
    load: Load, encoder: str, tmp_path: Path, width: int, height: int
) -> None:
    """Garbage in U and V at each of these sizes, as NVENC read chroma behind luma and ours lay elsewhere. And
    no NVDEC at all: the engine is loaded first here, which it answered with -95."""
    clips, loaded = [write_clip(tmp_path / "clip.mp4", width=width, height=height, frames=10)], kept(load)
    expected = expected_frames(clips, loaded)
    played = play(clips, loaded, encoder=encoder, on_gpu=True)
    right(played, expected)
    stayed_on_the_gpu(played, encoder)


@pytest.mark.gpu
def test_a_change_of_size_goes_on_on_the_gpu(load: Load, encoder: str, tmp_path: Path) -> None:
    """Surfaces of one size must not be taken for those of the next: NVENC keeps what it has registered."""
    sizes = ((320, 180), (640, 360), (320, 180))
    clips = [
        write_clip(tmp_path / f"{index}.mp4", width=width, height=height, frames=8)
        for index, (width, height) in enumerate(sizes)
    ]
    loaded = kept(load)
    played = play(clips, loaded, encoder=encoder, on_gpu=True)
    right(played, expected_frames(clips, loaded))
    assert [o.output.width for o in played.opened] == [640, 1280, 640]
    stayed_on_the_gpu(played, encoder)


@pytest.mark.gpu
@pytest.mark.parametrize("encoder", [NVENC], indirect=True)
def test_what_nvenc_refuses_goes_to_x264(load: Load, encoder: str, tmp_path: Path) -> None:
    """The stream ended: 4400 pixels are above what NVENC's H.264 takes."""
    clips, loaded = [write_clip(tmp_path / "clip.mp4", width=2200, height=240, frames=5)], kept(load)
    played = play(clips, loaded, encoder=encoder, on_gpu=True)
    right(played, expected_frames(clips, loaded))
    assert {o.output.encoder for o in played.opened} == {X264}


@pytest.mark.gpu
@pytest.mark.parametrize("batches", [False, True], ids=["in turns", "in batches"])
@pytest.mark.parametrize("streams", [1, 4, 20])
def test_streams_beside_each_other_do_not_mix(
    load: Load, encoder: str, tmp_path: Path, streams: int, batches: bool
) -> None:
    """Each has its own clip. Streams of one engine, pool and context: a surface that is lent twice, a lane's
    stream that is another's, or a registered address that has moved shows as a picture of another stream."""
    loaded = kept(load, batches=batches)
    # Of different lengths: a stream ends while others go on.
    clips = [
        write_clip(tmp_path / f"{index}.mp4", width=640, height=360, frames=10 + index)
        for index in range(streams)
    ]
    played: dict[int, Played] = {}

    def run(index: int) -> None:
        played[index] = play([clips[index]], loaded, encoder=encoder, on_gpu=True)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(played) == streams
    for index, clip in enumerate(clips):
        right(played[index], expected_frames([clip], loaded))


def test_what_is_compared_is_right_where_there_is_no_gpu(tmp_path: Path) -> None:
    """The same by the CPU's decoder, engine and encoder; and other chroma would be seen."""
    clips = [write_clip(tmp_path / "clip.mp4", width=106, height=60, frames=6)]
    loaded = kept(lambda width, height, **_: load_engine(DEFAULT_MODEL, width=width, height=height))
    expected = expected_frames(clips, loaded)
    played = play(clips, loaded, encoder=X264, on_gpu=False)
    right(played, expected)
    height = played.frames[0].shape[0] * 2 // 3
    for frame in played.frames:
        frame[height:] = np.roll(frame[height:], 7)
    errors = worst_error(played, expected)
    assert errors["u"] > MOST["u"] or errors["v"] > MOST["v"]
