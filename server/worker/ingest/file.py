"""A media file as a source: at the pace of its timestamps, over and over where it loops."""

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer

from engine.frame import USUAL_FPS
from server.wire.clock import now_ns
from server.wire.source_policy import SourcePolicy, allows_file
from server.worker.ingest.container import (
    METADATA_ERRORS,
    Pacer,
    find_tracks,
    packets_of,
    pixel_limit,
    tracks_of,
)
from server.worker.ingest.dial import Refused
from server.worker.ingest.folders import OPTIONS, Folders
from server.worker.ingest.source import Arrival, SourceLost, SourceUnusable, Times, Tracks


class FileSource:
    def __init__(
        self,
        path: Path,
        *,
        policy: SourcePolicy | None,
        loop: bool,
        max_size: tuple[int, int],
        stop: threading.Event,
    ) -> None:
        self._path = path
        self._policy = policy
        self._folders = Folders(policy) if policy is not None else None
        self._loop = loop
        self._options = pixel_limit(max_size)
        self._pacer = Pacer(stop)
        self._stop = stop
        self._container: InputContainer | None = None
        self._coding: list[tuple[str, bytes | None]] = []

    def open(self) -> Tracks:
        """Raises SourceUnusable where there is no such file, or it holds no video."""
        if self._policy is not None and not allows_file(self._path, self._policy):
            raise SourceUnusable(f"{self._path}: does not lie in one of sources.folders")
        if not self._path.is_file():
            raise SourceUnusable(f"{self._path}: {'is no file' if self._path.exists() else 'no such file'}")
        try:
            self._container = self._opened()
            video, audio = find_tracks(self._container)
        except MemoryError:
            raise
        except av.FFmpegError as exc:
            reason = (self._folders and self._folders.failure) or exc.strerror
            raise SourceUnusable(f"{self._path}: is no media file ({reason})") from exc
        except (LookupError, Refused) as exc:
            raise SourceUnusable(f"{self._path}: {exc}") from exc
        coders = [track.codec_context for track in (video, audio) if track is not None]
        self._coding = [(coder.name, coder.extradata) for coder in coders]
        return tracks_of(video, audio)

    def _opened(self) -> InputContainer:
        # The prefix keeps libav from reading a colon in the name as a protocol.
        name = f"file:{self._path.absolute()}"
        if self._folders is None:
            return av.open(name, options=self._options, metadata_errors=METADATA_ERRORS)
        return av.open(
            name,
            options=self._options | OPTIONS,
            io_open=self._folders.open,
            metadata_errors=METADATA_ERRORS,
        )

    def arrivals(self) -> Iterator[Arrival]:
        """One pass after another without a seam: each starts where the one before ended."""
        offset_s = 0.0
        while not self._stop.is_set():
            span = _Span()
            yield from self._pass(offset_s, span)
            if not self._loop or self._stop.is_set():
                return
            if span.length_s <= 0:
                raise SourceUnusable(f"{self._path}: no packet could be read")
            offset_s += span.length_s
            self.close()
            before = self._coding
            self.open()  # not a seek, which elementary streams and some damaged files can't do
            if self._coding != before:  # decoders in use are the first file's
                raise SourceLost(f"{self._path}: was replaced by one that is coded otherwise")

    def _pass(self, offset_s: float, span: "_Span") -> Iterator[Arrival]:
        """The file once, `offset_s` later than its timestamps say; `span` learns how long it is."""
        assert self._container is not None
        picture, sound = find_tracks(self._container)
        nominal_s = 1 / float(picture.average_rate or USUAL_FPS)
        try:
            for video, packet in packets_of(self._container, picture, [sound] if sound else []):
                if packet.size == 0 and self._loop:
                    continue  # a flushed decoder would not take the next pass
                ticks = round(offset_s / packet.time_base)
                if packet.pts is not None:
                    span.add(packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base)
                    packet.pts += ticks
                elif video:  # an elementary stream carries no time: its frames follow at the nominal rate
                    span.add(span.length_s, nominal_s)
                if packet.dts is not None:
                    packet.dts += ticks
                    self._pacer.hold(float(packet.dts * packet.time_base), video=video)
                elif video:
                    self._pacer.hold(offset_s + span.length_s, video=True)
                if self._stop.is_set():
                    return
                yield Arrival(video=video, packet=packet, times=Times.at(now_ns()))
        except Refused as exc:
            raise SourceUnusable(f"{self._path}: {exc}") from exc
        except av.FFmpegError:
            # A file cut off or damaged in its container ends where it can't be read any further.
            return

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
        if self._folders is not None:
            self._folders.close()


class _Span:
    """Span of a file: from its first presentation to the end of the last."""

    def __init__(self) -> None:
        self._start_s: float | None = None
        self._end_s = 0.0

    def add(self, start_s: float | Fraction, duration_s: float | Fraction) -> None:
        start, end = float(start_s), float(start_s + duration_s)
        self._start_s = start if self._start_s is None else min(self._start_s, start)
        self._end_s = max(self._end_s, end)

    @property
    def length_s(self) -> float:
        return 0.0 if self._start_s is None else self._end_s - self._start_s
