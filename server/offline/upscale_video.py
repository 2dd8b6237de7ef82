"""A whole video file through the pipeline of the live service: nothing dropped, sound copied."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.frame import EngineSpec
from server.offline.file_reader import WholeFile
from server.offline.file_writer import FileWriter
from server.wire.logs import Log
from server.worker.encode.h264 import X264, choose_encoder
from server.worker.process.pipeline import Pipeline
from server.worker.process.ring import Upscaled
from server.worker.process.supply import LoadEngine

# frames done, frames there should be (0: unknown), seconds since the first
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What was done. `dropped`: packets of the source that gave no picture, by reason."""

    frames: int
    seconds: float
    source_size: tuple[int, int]
    size: tuple[int, int]
    spec: EngineSpec
    dropped: dict[str, int]


def upscale_video(
    source: Path,
    target: Path,
    *,
    load: LoadEngine,
    lanes: int,
    crf: int,
    preset: str,
    progress: Progress,
    log: Log,
) -> Summary:
    """Writes beside the target first: whatever goes wrong, no half a file is left under its name.

    Raises ValueError and FileNotFoundError for files, ValueError for a preset that x264 doesn't have,
    EngineError for a model that can't be used.
    """
    choose_encoder(X264, preset, log)  # it opens with it
    reader = WholeFile(source, log)
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    last: Upscaled | None = None
    frames = 0
    started_s = time.monotonic()

    def consume(upscaled: Upscaled) -> None:
        nonlocal last, frames
        writer.write(upscaled)
        last, frames = upscaled, frames + 1
        progress(frames, reader.frames, time.monotonic() - started_s)

    try:
        writer = FileWriter(
            partial,
            target=target,
            time_base=reader.time_base,
            fps=reader.fps,
            audio=reader.audio,
            crf=crf,
            preset=preset,
        )
        pipeline = Pipeline(
            produce=lambda put: reader.run(put, writer.copy),
            load=load,
            lanes=lanes,
            consume=consume,
            on_drop=None,
            log=log,
        )
        pipeline.start()
        try:
            pipeline.join()
        finally:
            # Interrupted: the reader must not be closed under a thread that reads.
            pipeline.abort()
            pipeline.wait()
        writer.close()
        os.replace(partial, target)
    finally:
        reader.close()
        partial.unlink(missing_ok=True)
    assert last is not None, "a reader without a picture raises"
    form = last.picture.format
    return Summary(
        frames=frames,
        seconds=time.monotonic() - started_s,
        source_size=(form.width, form.height),
        size=(last.frame.width, last.frame.height),
        spec=last.spec,
        dropped=dict(reader.dropped),
    )
