"""Keeps a live source going: opens it, decodes what arrives, and opens it again when it is lost."""

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial

from server.wire.logs import Log
from server.wire.messages import (
    VIDEO_CLOCK_HZ,
    AudioFormat,
    Deinterlace,
    DropReason,
    Message,
    PictureMissing,
    Reconnecting,
    Stage,
    When,
)
from server.worker.encode.audio import AudioPublisher, SoundOrder
from server.worker.ingest.source import PublisherLost, Source, SourceLost, SourceUnusable, Tracks
from server.worker.ingest.timeline import Timeline
from server.worker.process.decode import PictureDecoder
from server.worker.process.picture import Picture

_FIRST_RETRY_S, _LAST_RETRY_S = 0.5, 10.0
_LEAST_PAUSE_S = 0.05
# A picture missing for so many times the timeout may be in a track that came later: opened anew, it is found.
_MISSING_TIMEOUTS = 6


class LiveIngest:
    """Pictures go to `put`, sound to `send` as packets that are ready; both on one timeline. `on_open` hears
    of each opening: what follows has nothing to do with what was before."""

    def __init__(
        self,
        source: Source,
        *,
        max_size: tuple[int, int],
        timeout_s: float,
        send: Callable[[Message], None],
        on_drop: Callable[[Stage, DropReason], None],
        on_open: Callable[[], None],
        on_sound_drop: Callable[[DropReason], None],
        stop: threading.Event,
        log: Log,
        watched: threading.Event,
        source_when: When = "always",
        deinterlace: Deinterlace = "frame",
        on_gpu: bool = False,
        sound_after: int | None = None,
        on_away: Callable[[datetime, int], None] = lambda since, opening: None,
        takes_sound: Callable[[AudioFormat], bool] = lambda form: True,
    ) -> None:
        """`watched`: there is somebody to hear the sound; with `source_when` "watched" the source is open
        only then. Who stops it sets `watched` as well. `on_gpu`: pictures stay in the GPU's memory where they
        can. No sound starts before `sound_after`. `on_away` hears since when no picture comes, and which
        opening of the source is over; `takes_sound` says whether sound of that format can be sent now."""
        self._source = source
        self._max_size = max_size
        self._timeout_s = timeout_s
        self._send = send
        self._on_drop = on_drop
        self._on_sound_drop = on_sound_drop
        self._on_open = on_open
        self._stop = stop
        self._log = log
        self._watched = watched
        self._source_when = source_when
        self._on_gpu = on_gpu
        self._deinterlace = deinterlace
        self._timeline = Timeline()
        self._timestamp_s: float | None = None  # of the last picture
        self._audio: AudioPublisher | None = None
        self._retry_s = _FIRST_RETRY_S
        self._openings = 0
        self._sound = SoundOrder(sound_after)
        self._on_away = on_away
        self._takes_sound = takes_sound
        self._seen = datetime.now(UTC)  # when the last picture came

    def audio_format(self) -> AudioFormat | None:
        """The open source's sound; None where it has none."""
        return self._audio.format if self._audio is not None else None

    def close(self) -> None:
        """Lets go of the sound's codecs, once `run` has returned."""
        self._audio = None

    def silence(self, until_s: float, form: AudioFormat) -> None:
        """Sends silence up to there where the source has nothing to say. For any thread."""
        self._sound.fill(until_s, form, self._send)

    def run(self, put: Callable[[Picture], None]) -> None:
        """Runs until stopped or the source has ended. Raises SourceUnusable where it can never be a
        stream."""
        while not self._stop.is_set():
            if not self._wanted():
                self._watched.wait()
                self._seen = datetime.now(UTC)
                continue
            started_s = time.monotonic()
            try:
                if self._run_once(put):
                    return
            except SourceLost as exc:
                if self._stop.is_set():
                    return
                waited_s = time.monotonic() - started_s if isinstance(exc, PublisherLost) else 0.0
                retry_s = self._pause_s(waited_s)
                self._log.warning("source lost", reason=str(exc), retry_s=round(retry_s, 1))
                self._send(Reconnecting(reason=str(exc), retry_in_s=retry_s, opening=self._openings))
                self._on_away(self._seen, self._openings)
                self._stop.wait(retry_s)
            finally:
                self._source.close()

    def _wanted(self) -> bool:
        return self._source_when == "always" or self._watched.is_set()

    def _pause_s(self, waited_s: float) -> float:
        """Pause until the next try. After a long wait for a publisher it is short, so that one seldom finds
        the port closed; a server is called ever less often, however long it takes to refuse."""
        if waited_s > self._retry_s:
            self._retry_s = _FIRST_RETRY_S
            return _LEAST_PAUSE_S
        # Jitter: a hundred streams of one lost server must not come back at the same moment.
        pause_s = self._retry_s * random.uniform(0.75, 1.25)
        self._retry_s = min(self._retry_s * 2, _LAST_RETRY_S)
        return pause_s

    def _run_once(self, put: Callable[[Picture], None]) -> bool:
        """Whether the source has ended, rather than that nobody wants it now."""
        tracks = self._source.open()
        self._openings += 1
        self._timeline.reset()
        self._on_open()
        self._audio = self._publisher(tracks)
        decoder = PictureDecoder(
            tracks,
            max_size=self._max_size,
            stamp=self._stamp,
            on_drop=lambda reason: self._on_drop("decode", reason),
            log=self._log,
            on_gpu=self._on_gpu,
            opening=self._openings,
            deinterlace=self._deinterlace,
        )
        waited_s = 0.0  # for a picture, of the source alone: what holds us up is no fault of its
        undecoded = missing = False
        asked_s = time.monotonic()
        pictures = 0
        for arrival in self._source.arrivals():
            waited_s += time.monotonic() - asked_s
            if self._stop.is_set() or not self._wanted():
                return False
            if not arrival.video:
                audio = self._audio
                if audio is not None and self._watched.is_set() and self._takes_sound(audio.format):
                    audio.push(arrival.packet, arrival.times.live_ns)
            else:
                if missing:  # it may begin between two key frames
                    waited_s, missing = 0.0, False
                undecoded = True
                for picture in decoder.decode(arrival.packet, arrival.times):
                    put(picture)
                    pictures += 1
                    self._seen = datetime.now(UTC)
                    self._retry_s = _FIRST_RETRY_S
                    waited_s, undecoded = 0.0, False
            if waited_s > self._timeout_s:
                if undecoded or waited_s > _MISSING_TIMEOUTS * self._timeout_s:
                    raise SourceLost(f"no picture could be decoded for {waited_s:.0f} s")
                if not missing:
                    missing = True
                    self._say_missing()
            asked_s = time.monotonic()
        if not pictures and not self._stop.is_set():
            raise SourceUnusable("no picture could be decoded")
        return True

    def _say_missing(self) -> None:
        """Its sound is worth more than an attempt to open it anew, which may find no picture either."""
        reason = f"no picture for {self._timeout_s:g} s, while its sound goes on"
        self._log.warning("picture missing", reason=reason)
        self._send(PictureMissing(reason=reason))
        self._on_away(self._seen, self._openings - 1)

    def _publisher(self, tracks: Tracks) -> AudioPublisher | None:
        if tracks.audio is None:
            return None
        return AudioPublisher(
            tracks.audio,
            present=partial(self._timeline.at, "sound"),
            send=self._send,
            on_drop=self._on_sound_drop,
            order=self._sound,
        )

    def _stamp(self, pts: int, duration: int, time_base: Fraction, live_ns: int) -> tuple[int, int]:
        # Where the source's clock stands still, the picture's own time is that of its arrival.
        timestamp_s = float(pts * time_base)
        still, self._timestamp_s = timestamp_s == self._timestamp_s, timestamp_s
        presentation_s = self._timeline.at("picture", None if still else timestamp_s, live_ns)
        return round(presentation_s * VIDEO_CLOCK_HZ), round(duration * time_base * VIDEO_CLOCK_HZ)
