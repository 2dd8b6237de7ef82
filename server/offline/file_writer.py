"""Upscaled pictures into a media file: constant quality, the source's timestamps, its sound as it was."""

import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.frame import PictureType
from av.video.stream import VideoStream

from server.worker.process.picture import PictureFormat
from server.worker.process.ring import Upscaled


class FileWriter:
    """`write` and `copy` may be called from two threads. Without `close` the file is not whole."""

    def __init__(
        self,
        path: Path,
        *,
        target: Path,
        time_base: Fraction,
        fps: Fraction,
        audio: Sequence[AudioStream],
        crf: int,
        preset: str,
    ) -> None:
        """`target`: what the file will be called, with the same ending. Raises ValueError where that stands
        for no container of H.264 and that sound."""
        try:
            self._container = av.open(f"file:{path.absolute()}", "w")
        except ValueError as exc:
            raise ValueError(
                f"{target.name}: ending {target.suffix!r} must be a video format, like .mp4"
            ) from exc
        self._time_base = time_base
        self._lock = threading.Lock()
        self._format: PictureFormat | None = None  # of the first picture, with which the encoder is opened
        # Sound that comes before the first picture, which the file's header needs: a few packets.
        self._early: list[Packet[Any]] = []
        video = self._container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": preset})
        assert isinstance(video, VideoStream)
        if self._container.format.name == "avi":  # it has no times to put pictures in order by
            video.codec_context.max_b_frames = 0
        self._video = video
        try:
            self._audio = {s.index: self._container.add_stream_from_template(s) for s in audio}
        except ValueError as exc:
            codecs = ", ".join(sorted({s.codec_context.name for s in audio}))
            raise ValueError(
                f"{target.name}: {target.suffix} can't hold its sound ({codecs}) as it is"
            ) from exc

    def copy(self, packet: "Packet[AudioStream]") -> None:
        with self._lock:
            packet.stream = self._audio[packet.stream_index]
            if self._format is None:
                self._early.append(packet)
            else:
                self._container.mux_one(packet)

    def write(self, upscaled: Upscaled) -> None:
        """Raises ValueError for a picture of another size than the first: a file has one."""
        picture = upscaled.picture
        form, first = picture.format, self._format or self._begin(upscaled)
        if (form.width, form.height) != (first.width, first.height):
            raise ValueError(
                f"its picture changes from {first.width}×{first.height} to {form.width}×{form.height}; "
                "a file has one size"
            )
        frame = upscaled.frame
        frame.pts, frame.time_base, frame.duration = picture.pts, self._time_base, picture.duration
        frame.pict_type = PictureType.NONE
        packets = self._video.encode(frame)
        with self._lock:
            self._container.mux(packets)

    def _begin(self, upscaled: Upscaled) -> PictureFormat:
        form, frame = upscaled.picture.format, upscaled.frame
        context = self._video.codec_context
        context.width, context.height, context.pix_fmt = frame.width, frame.height, "yuv420p"
        context.time_base = self._time_base
        context.sample_aspect_ratio = Fraction(*form.sample_aspect_ratio)
        context.color_range, context.colorspace = form.tags.range, form.tags.matrix
        context.color_primaries, context.color_trc = form.tags.primaries, form.tags.transfer
        with self._lock:
            self._container.mux(self._early)
            self._early.clear()
            self._format = form
        return form

    def close(self) -> None:
        self._container.mux(self._video.encode(None))
        self._container.close()
