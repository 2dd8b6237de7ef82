"""From upscaled pictures to packets: opens the encoders, says so, and stamps each frame with its trace."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import av
from msgspec.structs import replace

from engine.frame import USUAL_FPS
from server.wire.clock import now_ns
from server.wire.logs import Log
from server.wire.messages import (
    SOURCE,
    UPSCALED,
    VIDEO_CLOCK_HZ,
    AudioFormat,
    EngineFormat,
    Message,
    Opened,
    OutputFormat,
    Rendition,
    RenditionFormat,
    SourceFormat,
    Trace,
    VideoPacket,
)
from server.wire.renditions import in_vp8, picture_of
from server.worker.encode.h264 import (
    NVENC,
    ON_GPU,
    Encoded,
    EncoderFormat,
    choose_encoder,
    usual_bitrate_bps,
)
from server.worker.encode.live_encoder import LiveEncoder
from server.worker.encode.renditions import Scaler, ShownFrames, on_host, rendition_sizes
from server.worker.encode.shown import Shown, dark, even_frame
from server.worker.encode.slate import Slate
from server.worker.encode.vp8 import VPX
from server.worker.process.picture import (
    Picture,
    PictureFormat,
)
from server.worker.process.ring import Upscaled

# So often a frame is made where none comes; and after so long a silence, so that players always have some to
# play, or after so many intervals of a source that is slow, where that leaves no hole.
IDLE_S = 0.2
_HELD_AFTER_S, _HELD_INTERVALS = 0.75, 2
# A worker begins in the place of another: by then it has a picture of its own, if there is one.
_BEGUN_S = 3.0
_IDLE_TICKS, _LARGEST_GAP = round(IDLE_S * VIDEO_CLOCK_HZ), 2 * VIDEO_CLOCK_HZ
# Where it would be due by itself: the upscaled rendition says which picture is a key frame.
_NEVER_S = 1e9
_NO_TRACE = Trace(demux=0.0, decode=0.0, queue=0.0, upscale=0.0, encode=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Away:
    """Since when no picture comes, and the last opening of the source that is over."""

    since: datetime
    opening: int


class VideoPublisher:
    """`publish` and `idle` belong to one thread; the rest may be called from any.

    While it is watched and nothing is published, `idle` shows what there is: first the last picture again and
    again, then, once the source is known to be away, the slate.
    """

    def __init__(
        self,
        *,
        encoder: str,
        preset: str,
        bitrate_bps: int,
        keyframe_interval_s: float,
        renditions: Sequence[Rendition] = (UPSCALED, SOURCE),
        send: Callable[[Message], None],
        on_frame: Callable[[int, float, float], None] = lambda level, latency_s, interval_s: None,
        audio_format: Callable[[], AudioFormat | None],
        log: Log,
        after: int | None = None,
        slate: Slate | None = None,
        before: Opened | None = None,
        silence: Callable[[float, AudioFormat], None] = lambda until_s, form: None,
    ) -> None:
        """`on_frame` hears of each upscaled frame: the level of the ladder it is of, its latency since it was
        demuxed, by the rendition that is sent last, and how long it is shown, in seconds. `renditions` may be
        watched. The first timestamp is above `after`. `before`: what another worker had opened. `silence` is
        called with each frame made for want of a picture: up to when, and of which format, there has to be
        some sound."""
        self.frames = 0  # upscaled ones
        self.encoder = choose_encoder(encoder, preset, log)
        self._preset = preset
        self._bitrate_bps = bitrate_bps
        self._keyframe_interval_s = keyframe_interval_s
        self._send = send
        self._on_frame = on_frame
        self._audio_format = audio_format
        self._slate = slate or Slate(None)
        self._silence = silence
        self._sound = before.audio if before else None  # as the gateway knows it
        self._opened: Opened | None = None
        self._last = dark(before) if before else None
        self._away: _Away | None = None
        self._log = log
        self._names = renditions
        self._missing: set[Rendition] = set()  # of those, for the picture's size
        self._watches: frozenset[Rendition] = frozenset()
        self._watched_ns = self._begun_ns = now_ns()
        self._encoders = {name: LiveEncoder(name, log) for name in (*renditions, *map(in_vp8, renditions))}
        self._scaler = Scaler()
        self._last_pts = after

    def request_keyframe(self) -> None:
        """The next picture is a key frame in every rendition."""
        self._encoders[UPSCALED].request_keyframe()

    def watch(self, renditions: Collection[Rendition]) -> None:
        """Who watches meets a key frame, and so does everyone where another rendition begins."""
        if renditions and not self._watches:
            self._watched_ns = now_ns()
            self.request_keyframe()
        self._watches = frozenset(renditions)

    def source_away(self, since: datetime, opening: int) -> None:
        """No picture comes but of a later opening of the source; those on their way are still shown."""
        self._away = _Away(since=since, opening=opening)

    def takes_sound(self, form: AudioFormat) -> bool:
        """Sound of another format waits for its picture, with which the gateway hears of it."""
        return self._away is None or form == self._sound

    def publish(self, upscaled: Upscaled) -> None:
        picture = upscaled.picture
        pts = self._rising(picture.pts, _duration(picture))
        started_ns = now_ns()
        self._back(picture.opening)
        packet = VideoPacket(
            rendition=UPSCALED,
            pts=pts,
            duration=_duration(picture),
            keyframe=False,
            arrival_ns=picture.arrival_ns,
            sent_ns=0,
            trace=_trace(upscaled, started_ns),
            payload=b"",
            opening=picture.opening,
        )
        source = cache(lambda: even_frame(picture))
        frames = ShownFrames(upscaled.frame, source, self._scaler)
        sent_ns = self._show(packet, frames, picture.format, upscaled)
        self._last = Shown(
            form=picture.format,
            upscaled=upscaled.frame,
            source=source,
            opening=picture.opening,
            duration=_duration(picture),
            shown_ns=now_ns(),
            lead=pts - _ticks(now_ns()),
        )
        self.frames += 1
        # What a demuxer holds back no smaller network would make up for.
        latency_s = _seconds(sent_ns - picture.demuxed_ns)
        self._on_frame(upscaled.level, latency_s, _duration(picture) / VIDEO_CLOCK_HZ)

    def close(self) -> None:
        """Lets go of encoders and frames; nothing is published any more."""
        for encoder in self._encoders.values():
            encoder.close()
        self._last = None

    def idle(self) -> None:
        """Nothing has come to be published for IDLE_S."""
        away, last = self._away, self._last
        if not self._watches or last is None:
            return
        now = now_ns()
        quiet_s = _seconds(now - max(last.shown_ns, self._watched_ns))
        since = away.since if away else None
        if since is None:
            held = _HELD_INTERVALS * last.duration
            held_s = max(_HELD_AFTER_S, held / VIDEO_CLOCK_HZ if held <= _LARGEST_GAP else 0.0)
            if last.opening == 0:
                if quiet_s < _BEGUN_S:
                    return
                since = datetime.now(UTC)
                self._away = _Away(since=since, opening=0)
            elif quiet_s < held_s or last.shown_ns < self._watched_ns:
                return  # what was last seen by somebody else is too old to be shown as if it were live
        until = _ticks(now) + last.lead
        for pts in self._gap(until):
            self._last_pts = pts
            self._stand_in(last, since, pts)
        if self._sound is not None:
            self._silence(until / VIDEO_CLOCK_HZ, self._sound)

    def _gap(self, until: int) -> Iterable[int]:
        """Timestamps from the last one up to there: a segment of HLS has no room for a hole."""
        if self._last_pts is None or until - self._last_pts > _LARGEST_GAP:
            return (until,)
        return range(self._last_pts + _IDLE_TICKS, until + 1, _IDLE_TICKS)

    def _stand_in(self, last: Shown, since: datetime | None, pts: int) -> None:
        """Shows the last picture again, or the slate where it is known since when the source is away."""
        upscaled, source = last.upscaled, last.source
        if since is not None:
            shown_since, form = since, last.form
            upscaled = last.upscaled = on_host(upscaled)
            upscaled = self._slate.frame(UPSCALED, upscaled, form, since)
            source = lambda: self._slate.frame(SOURCE, last.source(), form, shown_since)  # noqa: E731
        packet = VideoPacket(
            rendition=UPSCALED,
            pts=pts,
            duration=_IDLE_TICKS,
            keyframe=False,
            arrival_ns=now_ns(),
            sent_ns=0,
            trace=_NO_TRACE,
            payload=b"",
            opening=max(last.opening, 1),
            slate=True,
        )
        self._show(packet, ShownFrames(upscaled, source, self._scaler), last.form, None)

    def _back(self, opening: int) -> None:
        """A picture is about to be shown. What follows the slate, or is of another opening, begins with a key
        frame."""
        away = self._away
        if away is not None and opening > away.opening:
            self._away = None
        elif self._last is not None and opening == self._last.opening:
            return
        self.request_keyframe()

    def _rising(self, pts: int, duration: int) -> int:
        """Timestamps rise strictly. Where the timeline was moved back they go on at twice the pace until they
        meet it again, instead of standing still."""
        if self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + max(1, duration // 2)
        self._last_pts = pts
        return pts

    def _show(
        self, packet: VideoPacket, frames: ShownFrames, form: PictureFormat, upscaled: Upscaled | None
    ) -> int:
        """Encodes and sends what is watched of one picture, the upscaled rendition in any case and first, and
        returns when the last was. `upscaled`: what the gateway is to know of it."""
        formats = self._formats(frames.upscaled, form)
        watched = formats | {
            in_vp8(name): _as_vp8(one) for name, one in formats.items() if in_vp8(name) in self._watches
        }
        others = [name for name in watched if name != UPSCALED and name in self._watches]
        for name, encoder in self._encoders.items():
            if name != UPSCALED and name not in others:
                encoder.close()
        if not all(self._encoders[name].is_of(watched[name]) for name in others):
            self.request_keyframe()
        started_ns = now_ns()
        encoded = self._encoders[UPSCALED].encode(frames.upscaled, packet.pts, formats[UPSCALED])
        if upscaled is not None:
            self._say_opened(upscaled, formats)
        sent_ns = self._send_encoded(encoded, packet, started_ns)
        keyframe = any(one.keyframe for one in encoded)
        for name in others:
            started_ns, encoder, wanted = now_ns(), self._encoders[name], watched[name]
            picture = picture_of(name)
            frame = frames.of(picture, (wanted.width, wanted.height))
            if keyframe:
                encoder.request_keyframe()
            trace = replace(packet.trace, upscale=0.0) if picture == SOURCE else packet.trace
            encoded = encoder.encode(frame, packet.pts, wanted)
            sent_ns = self._send_encoded(encoded, replace(packet, rendition=name, trace=trace), started_ns)
        return sent_ns

    def _formats(self, upscaled: av.VideoFrame, form: PictureFormat) -> dict[Rendition, EncoderFormat]:
        """What each rendition of such a picture is encoded as in H.264, the largest first."""
        sizes = rendition_sizes(self._names, (upscaled.width, upscaled.height), form)
        missing = set(self._names) - set(sizes)
        if missing - self._missing:
            self._log.warning(
                "renditions left out",
                renditions=sorted(missing),
                reason=f"the upscaled picture has only {upscaled.height} lines",
            )
        self._missing = missing
        formats = {}
        for name, (width, height) in sizes.items():
            bitrate_bps = usual_bitrate_bps(width, height, form.fps)
            if self._bitrate_bps:  # chosen, for the upscaled one
                smaller = name != UPSCALED and bitrate_bps < self._bitrate_bps
                bitrate_bps = bitrate_bps if smaller else self._bitrate_bps
            formats[name] = EncoderFormat(
                encoder=self.encoder,
                preset=self._preset,
                width=width,
                height=height,
                fps=form.fps,
                bitrate_bps=bitrate_bps,
                keyframe_interval_s=self._keyframe_interval_s if name == UPSCALED else _NEVER_S,
                sample_aspect_ratio=form.sample_aspect_ratio,
                tags=form.tags,
            )
        return formats

    def _say_opened(self, upscaled: Upscaled, formats: Mapping[Rendition, EncoderFormat]) -> None:
        """Before the first packet that it is true of."""
        spec, form, encoder = upscaled.spec, upscaled.picture.format, self._encoders[UPSCALED].format
        opened = Opened(
            source=SourceFormat(
                codec=form.codec,
                width=form.width,
                height=form.height,
                pixel_format=form.pixel_format,
                fps=form.fps,
                sample_aspect_ratio=form.sample_aspect_ratio,
                decoder=form.decoder,
            ),
            output=OutputFormat(
                width=encoder.width,
                height=encoder.height,
                encoder=encoder.encoder,
                bitrate_bps=encoder.bitrate_bps,
                on_gpu=encoder.encoder == NVENC and upscaled.frame.format.name == ON_GPU,
            ),
            engine=EngineFormat(
                model=spec.model,
                backend=spec.backend,
                precision=spec.precision or "none",
                parity_db=spec.parity_db,
                scale=spec.scale,
            ),
            audio=self._audio_format(),
            renditions=tuple(
                RenditionFormat(name=name, width=one.width, height=one.height, bitrate_bps=one.bitrate_bps)
                for name, one in formats.items()
            ),
        )
        if opened != self._opened:
            self._opened = opened
            self._sound = opened.audio
            self._send(opened)

    def _send_encoded(self, encoded: list[Encoded], packet: VideoPacket, started_ns: int) -> int:
        """Sends what was encoded as that packet says, and returns when it was; a slow gateway may take it
        later."""
        sent_ns = now_ns()
        for one in encoded:
            self._send(
                replace(
                    packet,
                    pts=one.pts,
                    keyframe=one.keyframe,
                    sent_ns=sent_ns,
                    trace=replace(packet.trace, encode=_seconds(sent_ns - started_ns)),
                    payload=one.payload,
                )
            )
        return sent_ns


def _as_vp8(form: EncoderFormat) -> EncoderFormat:
    """The upscaled rendition in H.264 says which picture is a key frame."""
    return dataclasses.replace(form, encoder=VPX, keyframe_interval_s=_NEVER_S)


def _trace(upscaled: Upscaled, encode_ns: int) -> Trace:
    """Where the time of a picture went until then; what encoding takes follows."""
    picture = upscaled.picture
    return Trace(
        demux=_seconds(picture.demuxed_ns - picture.arrival_ns),
        decode=_seconds(picture.decoded_ns - picture.demuxed_ns),
        queue=_seconds(upscaled.taken_ns - picture.decoded_ns + encode_ns - upscaled.upscaled_ns),
        upscale=_seconds(upscaled.upscaled_ns - upscaled.taken_ns),
        encode=0.0,
    )


def _duration(picture: Picture) -> int:
    """Duration in 90 kHz ticks; by the usual frame rate where the source says nothing."""
    return picture.duration or round(VIDEO_CLOCK_HZ / (picture.format.fps or USUAL_FPS))


def _seconds(duration_ns: int) -> float:
    return duration_ns / 1e9


def _ticks(time_ns: int) -> int:
    return time_ns * VIDEO_CLOCK_HZ // 1_000_000_000
