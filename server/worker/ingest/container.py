"""What file and network sources share: PyAV containers, their tracks, and packets at the pace of a clock."""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from server.worker.ingest.source import Tracks

# Later than this and the source itself has stalled: go on from here instead of rushing after it.
_STALL_S = 1.0
_SKIP_S = 10.0
# Sound this far ahead of the last picture is so because pictures are rare, not as the two are interleaved.
_SOUND_AHEAD_S = 2.0
_SOUND_GAP_S = 1.0  # a jump, too

# Live protocols: what is in flight is enough to find the tracks; libav's 5 s of analysis would be latency.
LOW_LATENCY = {"fpsprobesize": "4", "probesize": "1000000", "analyzeduration": "1000000"}

_INT_MAX = (1 << 31) - 1  # libav's own limit of a picture's pixels
_LARGEST_BLOCK = 128  # of AV1, in pixels
# More is a clock's ticks, which libav has for the rate where a protocol says none: VP9 by RTP is of 90,000.
_MOST_FPS = 480

# Of `av.open`: a title in Latin-1 is no reason to refuse a picture.
METADATA_ERRORS = "replace"

# libav draws text files as pictures; nobody who names one as a source wants to watch it.
_TEXT_CODECS = ("ansi", "bintext", "idf", "xbin")


def find_tracks(container: InputContainer) -> tuple[VideoStream, AudioStream | None]:
    """The first picture that is no cover image, and the default sound. Not to be kept: a track keeps its
    decoder, threads and all, when the container has been closed. Raises LookupError."""
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    usable = [s for s in pictures if s.codec_context is not None]
    if any(s.codec_context.name in _TEXT_CODECS for s in usable):
        raise LookupError("it is a text file, which has no video")
    if not usable:
        codecs = ", ".join(s.codec_context.name if s.codec_context else "unknown" for s in pictures)
        raise LookupError(f"no decoder for its video ({codecs})" if pictures else "it has no video stream")
    sounds = [s for s in container.streams.audio if s.codec_context is not None]
    default = [s for s in sounds if s.disposition & Disposition.default] or sounds
    return usable[0], default[0] if default else None


def pixel_limit(max_size: tuple[int, int]) -> dict[str, str]:
    """libav's option by which a decoder refuses a picture from its header, before it has memory for one. It
    leaves room for whole coded blocks: which sizes are above the limit is judged by `PictureDecoder`."""
    width, height = (-(-side // _LARGEST_BLOCK) * _LARGEST_BLOCK for side in max_size)
    return {"max_pixels": str(min(width * height, _INT_MAX))}


def tracks_of(video: VideoStream, audio: AudioStream | None) -> Tracks:
    rates = (video.average_rate, video.guessed_rate)
    rate = next((float(rate) for rate in rates if rate and 0 < rate <= _MOST_FPS), 0.0)
    aspect = video.sample_aspect_ratio
    return Tracks(
        video=video.codec_context,
        fps=rate,
        sample_aspect_ratio=(aspect.numerator, aspect.denominator) if aspect else (1, 1),
        audio=audio.codec_context if audio else None,
    )


def packets_of(
    container: InputContainer, video: VideoStream, audio: Sequence[AudioStream]
) -> "Iterator[tuple[bool, Packet[Any]]]":
    """Each packet with whether it is of the picture; at the end one empty packet for each track."""
    for packet in container.demux([video, *audio]):
        # Not `packet.stream_index`, which is 0 in an empty packet of any track.
        yield packet.stream.index == video.index, packet


class Pacer:
    """Holds packets back until their time has come on the monotonic clock.

    The picture sets it: a picture later than `stall_s` moves the time of those that follow, too, and one more
    than `skip_s` ahead is due at once, for the source has left something out. Sound goes along: it may lie
    seconds before or behind its picture in the container, or be of the time before a jump.
    """

    def __init__(self, stop: threading.Event, *, stall_s: float = _STALL_S, skip_s: float = _SKIP_S) -> None:
        self._stop = stop
        self._stall_s = stall_s
        self._skip_s = skip_s
        self._base_s: float | None = None
        self._before_s: dict[bool, float] = {}
        self._interval_s = 0.0  # between the last two pictures

    def hold(self, timestamp_s: float, *, video: bool) -> None:
        """Returns when a packet of that time is due, or at once when stopped."""
        now_s = time.monotonic()
        interval_s = timestamp_s - self._before_s.get(video, timestamp_s)
        self._before_s[video] = timestamp_s
        if self._base_s is None:
            self._base_s = now_s - timestamp_s
        wait_s = self._base_s + timestamp_s - now_s
        if not video:
            alone = timestamp_s - self._before_s.get(True, -math.inf) >= _SOUND_AHEAD_S
            wait_s = min(wait_s, interval_s) if alone and interval_s < _SOUND_GAP_S else 0.0
        else:
            # A picture each five seconds leaves nothing out.
            if not -self._stall_s <= wait_s <= max(self._skip_s, 3 * self._interval_s):
                self._base_s, wait_s = now_s - timestamp_s, 0.0
            self._interval_s = interval_s
        if wait_s > 0:
            self._stop.wait(wait_s)
