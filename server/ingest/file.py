"""A media file as a source: at the pace of its timestamps, over and over where it loops."""

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from server.ingest.container import Pacer, find_tracks, packets_of, tracks_of
from server.ingest.source import Arrival, SourceUnusable, Tracks


class FileSource:
    def __init__(self, path: Path, *, loop: bool, stop: threading.Event) -> None:
        self._path = path
        self._loop = loop
        self._pacer = Pacer(stop)
        self._stop = stop
        self._container: InputContainer | None = None
        self._video: VideoStream
        self._audio: AudioStream | None = None

    def open(self) -> Tracks:
        """Raises SourceUnusable where there is no such file, or it holds no video."""
        if not self._path.is_file():
            raise SourceUnusable(f"{self._path}: {'is no file' if self._path.exists() else 'no such file'}")
        try:
            # The prefix keeps libav from reading a colon in the name as a protocol.
            self._container = av.open(f"file:{self._path.absolute()}")
            self._video, self._audio = find_tracks(self._container)
        except av.FFmpegError as exc:
            raise SourceUnusable(f"{self._path}: is no media file ({exc.strerror})") from exc
        except LookupError as exc:
            raise SourceUnusable(f"{self._path}: {exc}") from exc
        return tracks_of(self._video, self._audio)

    def arrivals(self) -> Iterator[Arrival]:
        """One pass after another without a seam: each starts where the one before ended."""
        assert self._container is not None
        offset_s = 0.0
        while not self._stop.is_set():
            start_s, end_s = (self._container.start_time or 0) / av.time_base, 0.0
            for arrival, packet_end_s in self._pass(offset_s):
                end_s = max(end_s, packet_end_s)
                yield arrival
            if not self._loop:
                return
            if end_s <= offset_s + start_s:
                raise SourceUnusable(f"{self._path}: no packet could be read")
            offset_s = end_s - start_s
            self._container.seek(self._container.start_time or 0)

    def _pass(self, offset_s: float) -> Iterator[tuple[Arrival, float]]:
        """The file once: each arrival, and where in time its picture ends."""
        assert self._container is not None
        end_s = offset_s
        nominal = self._video.average_rate or Fraction(25)
        try:
            for video, packet in packets_of(self._container, self._video, self._audio):
                if self._stop.is_set():
                    return
                if packet.size == 0 and self._loop:
                    continue  # a flushed decoder would not take the next pass
                ticks = round(offset_s / packet.time_base)
                if packet.pts is not None:
                    packet.pts += ticks
                if packet.dts is not None:
                    packet.dts += ticks
                # An elementary stream carries no time: its frames follow each other at the nominal rate.
                start_s = end_s if packet.dts is None else float(packet.dts * packet.time_base)
                if video:
                    end_s = start_s + float((packet.duration or 0) * packet.time_base or 1 / nominal)
                self._pacer.hold(start_s)
                yield Arrival(video=video, packet=packet, arrival_ns=time.monotonic_ns()), end_s
        except av.FFmpegError:
            # A file cut off or damaged in its container ends where it can't be read any further.
            return

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
