"""A media file from its first to its last picture, as fast as they are taken, for work that is not live."""

import sys
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.packet import Packet

from engine.frame import USUAL_FPS
from server.wire.clock import now_ns
from server.wire.logs import Log
from server.worker.ingest.container import METADATA_ERRORS, find_tracks, packets_of, tracks_of
from server.worker.ingest.source import Times
from server.worker.process.decode import PictureDecoder
from server.worker.process.picture import Picture

_NO_LIMIT = (sys.maxsize, sys.maxsize)


class WholeFile:
    """An open file. Pictures keep their timestamps, in ticks of `time_base`; sound comes as it lies there."""

    def __init__(
        self,
        path: Path,
        log: Log,
        *,
        time_base: Fraction | None = None,  # the file's own
        on_gpu: bool = False,  # pictures stay there if NVDEC takes the file
    ) -> None:
        """Raises ValueError where it is no file with video in it."""
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            # The prefix keeps libav from reading a colon in the name as a protocol.
            self._container = av.open(f"file:{path.absolute()}", metadata_errors=METADATA_ERRORS)
            self._video, _ = find_tracks(self._container)
        except av.FFmpegError as exc:
            raise ValueError(f"{path}: is no media file ({exc.strerror})") from exc
        except LookupError as exc:
            raise ValueError(f"{path}: {exc}") from exc
        self._path = path
        self.audio: list[AudioStream] = [s for s in self._container.streams.audio if s.codec_context]
        self.fps = self._video.average_rate or Fraction(USUAL_FPS)
        self.time_base = time_base or self._video.time_base or 1 / self.fps
        self.dropped: Counter[str] = Counter()  # packets that gave no picture, by reason
        self._last_pts: int | None = None
        self._decoder = PictureDecoder(
            tracks_of(self._video, None),
            max_size=_NO_LIMIT,
            stamp=self._stamp,
            on_drop=lambda reason: self.dropped.update([reason]),
            log=log,
            on_gpu=on_gpu,
        )

    @property
    def frames(self) -> int:
        """How many there should be, as the container says or by its duration; 0 where it says neither."""
        seconds = (self._container.duration or 0) / av.time_base
        return self._video.frames or round(seconds * self.fps)

    def run(
        self, put: Callable[[Picture], None], on_audio: Callable[["Packet[Any]"], None] | None = None
    ) -> None:
        """Raises ValueError where no picture at all can be decoded."""
        pictures = 0
        try:
            for video, packet in packets_of(self._container, self._video, self.audio if on_audio else []):
                if not video:
                    if on_audio and packet.dts is not None:
                        on_audio(packet)
                    continue
                for picture in self._decoder.decode(packet, Times.at(now_ns())):
                    put(picture)
                    pictures += 1
        except av.FFmpegError as exc:  # cut off or damaged: it ends where it can't be read any further
            self.dropped.update([f"unreadable after {pictures} pictures: {exc.strerror}"])
        if not pictures:
            raise ValueError(f"{self._path}: no picture could be decoded")

    def _stamp(self, pts: int, duration: int, time_base: Fraction, _: int) -> tuple[int, int]:
        ticks = time_base / self.time_base
        start, length = round(pts * ticks), round(duration * ticks)
        # AVI only has the order of decoding: what libav makes of it with B-frames goes back now and then.
        if self._last_pts is not None and start <= self._last_pts:
            start = self._last_pts + max(length, 1)
        self._last_pts = start
        return start, length

    def close(self) -> None:
        self._container.close()
