"""What a stream of a network costs in CPU time, by running a short one as fast as it goes."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from engine.frame import Colour, Engine
from engine.load import load_engine
from server.offline.bench_pipeline import Drain, decode, measure_rate, run_pipeline
from server.wire.logs import get_logger
from server.wire.messages import BICUBIC, DEFAULT_KEYFRAME_INTERVAL_S
from server.worker.encode.h264 import choose_encoder
from server.worker.encode.video import VideoPublisher
from server.worker.ingest.open import DEMO_CLIP
from server.worker.process.bicubic import bicubic_engine
from server.worker.process.picture import Picture

_FRAMES = 40
_LOG = get_logger(__name__)


class _Enough(Exception):
    """As many pictures as are needed."""


def measure_cost(model: str, preset: str) -> float:
    """CPU seconds for a million pixels of source: the demo clip's first pictures decoded, upscaled and
    encoded. `model` may be bicubic, then ×2. Takes about a second. Raises EngineError."""

    def load(width: int, height: int, colour: Colour) -> Engine:
        if model == BICUBIC:
            return bicubic_engine(width, height, 2)
        return load_engine(model, width=width, height=height, colour=colour, lanes=0)

    pixels = list[int]()

    def some(put: Callable[[Picture], None]) -> None:
        def take(picture: Picture) -> None:
            put(picture)
            pixels.append(picture.format.width * picture.format.height)
            if len(pixels) == _FRAMES:
                raise _Enough

        with suppress(_Enough):
            decode(DEMO_CLIP, take)

    with Drain() as drain:
        publisher = VideoPublisher(
            encoder=choose_encoder("libx264", preset, _LOG),
            preset=preset,
            bitrate_bps=0,
            keyframe_interval_s=DEFAULT_KEYFRAME_INTERVAL_S,
            send=drain.send,
            audio_format=lambda: None,
            log=_LOG,
        )
        rate = measure_rate(partial(run_pipeline, load, some, 0, publisher))
        publisher.close()
    return rate.cpu_ms_per_frame / 1e3 / (pixels[0] / 1e6)
