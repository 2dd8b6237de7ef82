"""From upscaled pictures to packets: opens the encoders, says so, and stamps each frame with its trace."""

import threading
from collections.abc import Callable

import av
from msgspec.structs import replace

from engine.frame import USUAL_FPS, EngineSpec
from server.wire.clock import now_ns
from server.wire.logs import Log
from server.wire.messages import (
    VIDEO_CLOCK_HZ,
    AudioFormat,
    EngineFormat,
    Message,
    Opened,
    OutputFormat,
    Rendition,
    SourceFormat,
    Trace,
    VideoPacket,
)
from server.worker.encode.h264 import EncoderFormat, H264Encoder, choose_encoder, usual_bitrate_bps
from server.worker.process.picture import Picture, PictureFormat, frame_from_planes, host_frame, host_planes
from server.worker.process.ring import Upscaled


class VideoPublisher:
    """`publish` belongs to one thread; the rest may be called from any."""

    def __init__(
        self,
        *,
        encoder: str,
        preset: str,
        bitrate_bps: int,
        keyframe_interval_s: float,
        send: Callable[[Message], None],
        on_frame: Callable[[int, float, float], None] = lambda level, latency_s, interval_s: None,
        audio_format: Callable[[], AudioFormat | None],
        log: Log,
        after: int | None = None,
    ) -> None:
        """`on_frame` hears of each upscaled frame: the level of the ladder it is of, its latency since it was
        demuxed and how long it is shown, in seconds. The first timestamp is above `after`."""
        self.frames = 0  # upscaled ones
        self.encoder = choose_encoder(encoder, preset, log)
        self._preset = preset
        self._bitrate_bps = bitrate_bps
        self._keyframe_interval_s = keyframe_interval_s
        self._send = send
        self._on_frame = on_frame
        self._audio_format = audio_format
        self._opened: Opened | None = None
        self._upscaled: H264Encoder | None = None
        self._plain: H264Encoder | None = None
        self._plain_wanted = threading.Event()
        self._last_pts = after

    def request_keyframe(self, rendition: Rendition) -> None:
        encoder = self._upscaled if rendition == "upscaled" else self._plain
        if encoder is not None:
            encoder.request_keyframe()

    def set_plain(self, enabled: bool) -> None:
        """The plain rendition starts with an IDR at the next picture."""
        if enabled:
            self._plain_wanted.set()
        else:
            self._plain_wanted.clear()

    def publish(self, upscaled: Upscaled) -> None:
        picture = upscaled.picture
        pts = self._rising(picture)
        started_ns = now_ns()
        self._upscaled = self._encoder_for(self._upscaled, upscaled.frame, picture.format, self._bitrate_bps)
        self._say_opened(upscaled.spec, picture.format, self._upscaled.format)
        trace = Trace(
            demux=_seconds(picture.demuxed_ns - picture.arrival_ns),
            decode=_seconds(picture.decoded_ns - picture.demuxed_ns),
            queue=_seconds(upscaled.taken_ns - picture.decoded_ns + started_ns - upscaled.upscaled_ns),
            upscale=_seconds(upscaled.upscaled_ns - upscaled.taken_ns),
            encode=0.0,
        )
        sent_ns = self._encode("upscaled", self._upscaled, upscaled.frame, pts, picture, started_ns, trace)
        self.frames += 1
        # What a demuxer holds back no smaller network would make up for.
        latency_s = _seconds(sent_ns - picture.demuxed_ns)
        self._on_frame(upscaled.level, latency_s, _duration(picture) / VIDEO_CLOCK_HZ)
        if self._plain_wanted.is_set():
            started_ns = now_ns()
            frame = _even_frame(picture)
            self._plain = self._encoder_for(self._plain, frame, picture.format, 0)
            trace = replace(trace, upscale=0.0)
            self._encode("plain", self._plain, frame, pts, picture, started_ns, trace)
        elif self._plain is not None:
            self._plain.close()
            self._plain = None

    def close(self) -> None:
        for encoder in (self._upscaled, self._plain):
            if encoder is not None:
                encoder.close()

    def _rising(self, picture: Picture) -> int:
        """Timestamps rise strictly. Where the timeline was moved back they go on at twice the pace until they
        meet it again, instead of standing still."""
        pts = picture.pts
        if self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + max(1, _duration(picture) // 2)
        self._last_pts = pts
        return pts

    def _encoder_for(
        self, current: H264Encoder | None, frame: av.VideoFrame, form: PictureFormat, bitrate_bps: int
    ) -> H264Encoder:
        """The one at hand where it fits the picture, else a new one, which starts with an IDR."""
        wanted = EncoderFormat(
            encoder=self.encoder,
            preset=self._preset,
            width=frame.width,
            height=frame.height,
            fps=form.fps,
            bitrate_bps=bitrate_bps or usual_bitrate_bps(frame.width, frame.height, form.fps),
            keyframe_interval_s=self._keyframe_interval_s,
            sample_aspect_ratio=form.sample_aspect_ratio,
            tags=form.tags,
            pixel_format=frame.format.name,
        )
        if current is not None and current.format == wanted:
            return current
        if current is not None:
            current.close()
        return H264Encoder(wanted)

    def _say_opened(self, spec: EngineSpec, form: PictureFormat, encoder: EncoderFormat) -> None:
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
                on_gpu=encoder.pixel_format == "cuda",
            ),
            engine=EngineFormat(
                model=spec.model,
                backend=spec.backend,
                precision=spec.precision or "none",
                parity_db=spec.parity_db,
                scale=spec.scale,
            ),
            audio=self._audio_format(),
        )
        if opened != self._opened:
            self._opened = opened
            self._send(opened)

    def _encode(
        self,
        rendition: Rendition,
        encoder: H264Encoder,
        frame: av.VideoFrame,
        pts: int,
        picture: Picture,
        started_ns: int,
        trace: Trace,
    ) -> int:
        """When it was encoded; a slow gateway may take it later."""
        sent_ns = now_ns()
        for encoded in encoder.encode(frame, pts):
            sent_ns = now_ns()
            self._send(
                VideoPacket(
                    rendition=rendition,
                    pts=encoded.pts,
                    duration=_duration(picture),
                    keyframe=encoded.keyframe,
                    arrival_ns=picture.arrival_ns,
                    sent_ns=sent_ns,
                    trace=replace(trace, encode=_seconds(sent_ns - started_ns)),
                    payload=encoded.payload,
                    opening=picture.opening,
                )
            )
        return sent_ns


def _even_frame(picture: Picture) -> av.VideoFrame:
    """The source's picture as H.264 4:2:0 can code it."""
    width, height = picture.format.scaled_size(1)
    frame = host_frame(picture)
    if (frame.width, frame.height, frame.format.name) == (width, height, "yuv420p"):
        return frame
    return frame_from_planes(host_planes(picture), width, height)


def _duration(picture: Picture) -> int:
    """Duration in 90 kHz ticks; by the usual frame rate where the source says nothing."""
    return picture.duration or round(VIDEO_CLOCK_HZ / (picture.format.fps or USUAL_FPS))


def _seconds(duration_ns: int) -> float:
    return duration_ns / 1e9
