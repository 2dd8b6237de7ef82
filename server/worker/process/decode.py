"""Packets in, 8-bit 4:2:0 pictures out, whatever the source's pixel format, size and colours are."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
from av.codec.context import Flags
from av.packet import Packet
from av.video.format import VideoFormat
from av.video.reformatter import Interpolation, VideoReformatter

from engine.frame import USUAL_FPS, usual_matrix
from server.wire.clock import now_ns
from server.wire.logs import Log
from server.wire.messages import Deinterlace, DropReason
from server.worker.ingest.container import pixel_limit
from server.worker.ingest.source import SourceUnusable, Times, Tracks
from server.worker.memory import lacks_memory
from server.worker.process.deinterlace import Deinterlacer
from server.worker.process.nvdec import NVDEC, open_nvdec, surface_of
from server.worker.process.picture import (
    MATRIX_BT601,
    MATRIX_BT709,
    RANGE_FULL,
    RANGE_LIMITED,
    ColourTags,
    Picture,
    PictureFormat,
    even_planes,
    turned,
)

# A frame's timestamp, duration and time base, its packet's arrival → the picture's timestamp and duration.
Stamp = Callable[[int, int, Fraction, int], tuple[int, int]]

# They lie in memory as an engine wants them; every other format goes through swscale.
_NATIVE = ("yuv420p", "yuvj420p")


@dataclass(slots=True, kw_only=True)
class _Sent:
    """What a frame knows of its packet: the decoder is at a later one when a frame comes out of order."""

    times: Times
    shape: tuple[int, int]  # of the pixels, across and down


class PictureDecoder:
    """Decoder for one opening of a source. `on_drop(reason)` hears of each packet that gave no picture."""

    def __init__(
        self,
        tracks: Tracks,
        *,
        max_size: tuple[int, int],
        stamp: Stamp,
        on_drop: Callable[[DropReason], None],
        log: Log,
        on_gpu: bool = False,
        opening: int = 1,
        deinterlace: Deinterlace = "frame",
    ) -> None:
        """`opening`: which one it is. `on_gpu`: pictures stay in the GPU's memory if NVDEC takes the stream;
        else the log says why. Raises SourceUnusable where the source's own picture is above `max_size`.
        """
        self._log = log
        self._said_interlaced = False
        self._quarters = 0  # by which pictures are turned counterclockwise
        self._context = tracks.video
        self._max_size = max_size
        self._on_gpu = on_gpu
        self._opening = opening
        if on_gpu:
            try:
                self._context = open_nvdec(tracks.video)
            except LookupError as exc:
                log.warning("decoding on the CPU", codec=tracks.video.name, reason=str(exc))
                self._on_gpu = False
        self._refuse_above_limit(self._context.width, self._context.height)
        self._context.options = {**self._context.options, **pixel_limit(max_size)}
        self._context.copy_opaque = True  # a frame knows when its packet arrived
        if self._context.name == "libdav1d":
            self._context.flags |= Flags.low_delay  # else it holds a frame back for each of its threads
        self._tracks = tracks
        self._stamp = stamp
        self._on_drop = on_drop
        self._reformatter = VideoReformatter()
        self._rate = Fraction(tracks.fps or USUAL_FPS).limit_denominator(1001)
        self._untimed = 0  # pictures without a timestamp so far
        self._deinterlacer = Deinterlacer(deinterlace)
        self._deinterlaced = deinterlace != "off"
        self._format: PictureFormat | None = None
        self._seen: tuple[int | str, ...] = ()

    def decode(self, packet: "Packet[Any]", times: Times) -> list[Picture]:
        """The pictures that this packet completes; an empty packet gives those still held back.

        Raises SourceUnusable for a picture above `max_size`.
        """
        packet.opaque = sent = _Sent(times=times, shape=self._shape)
        try:
            frames = self._context.decode(packet)
        except av.error.EOFError:
            frames = []
        except MemoryError:
            raise
        except av.error.ArgumentError as exc:
            if not self._context.width:  # libav's word for `pixel_limit`
                width, height = self._max_size
                raise SourceUnusable(f"its picture is above the limit of {width}×{height}") from exc
            self._dropped(packet, exc)
            return []
        except av.FFmpegError as exc:
            self._dropped(packet, exc)
            return []
        sent.shape = self._shape
        pictures = [
            self._picture(progressive, sent)
            for frame in frames
            for progressive in self._deinterlacer.push(self._timed(frame))
        ]
        if not packet.size:
            pictures += [self._picture(frame, sent) for frame in self._deinterlacer.push(None)]
        return pictures

    @property
    def _shape(self) -> tuple[int, int]:
        """The pixels' shape by the decoder's own word; unknown is square, as some streams say now one, now
        the other."""
        aspect = self._context.sample_aspect_ratio
        return (aspect.numerator, aspect.denominator) if aspect else (1, 1)

    def _timed(self, frame: av.VideoFrame) -> av.VideoFrame:
        if frame.pts is None or frame.time_base is None:
            # An elementary stream carries no time: its pictures follow each other at the nominal rate.
            frame.pts, frame.time_base, frame.duration = self._untimed, 1 / self._rate, 1
            self._untimed += 1
        if frame.interlaced_frame and not self._said_interlaced:
            self._said_interlaced = True
            self._say_interlaced(frame)
        return frame

    def _dropped(self, packet: "Packet[Any]", exc: av.FFmpegError) -> None:
        if lacks_memory(exc):
            raise MemoryError from exc
        # Who joins a live stream between two keyframes meets pictures that nobody could decode.
        early = self._format is None and not packet.is_keyframe
        self._on_drop("before_keyframe" if early else "corrupt")
        self._log.debug("packet without picture", pts=packet.pts, reason=exc.strerror)

    def _picture(self, frame: av.VideoFrame, flushed: _Sent) -> Picture:
        sent = frame.opaque if isinstance(frame.opaque, _Sent) else flushed
        form, times = self._format_of(frame, sent.shape), sent.times
        assert frame.pts is not None
        assert frame.time_base is not None
        pts, duration = self._stamp(frame.pts, frame.duration, frame.time_base, times.live_ns)
        planes = surface_of(frame)
        if planes is None and frame.format.name not in _NATIVE:
            frame = self._to_native(frame, form)
        if planes is None and self._quarters:
            frame = turned(frame, self._quarters)
        return Picture(
            format=form,
            frame=frame,
            planes=planes or even_planes(frame),
            pts=pts,
            duration=duration,
            arrival_ns=times.arrival_ns,
            demuxed_ns=times.demuxed_ns,
            decoded_ns=now_ns(),
            opening=self._opening,
        )

    def _to_native(self, frame: av.VideoFrame, form: PictureFormat) -> av.VideoFrame:
        meant = form.tags.range or RANGE_LIMITED
        source_range = RANGE_FULL if frame.format.is_rgb else meant
        return self._reformatter.reformat(
            frame,
            format="yuv420p",
            src_color_range=source_range,
            # For swscale all grey is full range: into full range it leaves the samples as they are.
            dst_color_range=RANGE_FULL if _is_grey(frame.format) else meant,
            dst_colorspace=form.tags.matrix if frame.format.is_rgb else None,
            interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
            threads=1,
        )

    def _format_of(self, frame: av.VideoFrame, shape: tuple[int, int]) -> PictureFormat:
        pixels = frame.sw_format or frame.format
        name = pixels.name
        decoder = NVDEC if frame.sw_format is not None else self._context.name
        tags = (frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc)
        size = (frame.width, frame.height)
        seen = (*size, *shape, name, decoder, frame.rotation, self._deinterlacer.fields, *tags)
        if self._format is not None and seen == self._seen:
            return self._format
        self._refuse_above_limit(frame.width, frame.height)
        # The container's word on the pixels' shape goes first; after a change only the decoder's is current.
        if self._format is None and self._tracks.sample_aspect_ratio != (1, 1):
            shape = self._tracks.sample_aspect_ratio
        self._seen = seen
        width, height = frame.width, frame.height
        self._quarters = 0 if surface_of(frame) else round(frame.rotation / 90) % 4
        if self._quarters % 2:
            width, height, shape = height, width, shape[::-1]
        self._format = PictureFormat(
            codec=self._context.codec.canonical_name,
            pixel_format=name,
            width=width,
            height=height,
            fps=self._tracks.fps * (2 if self._deinterlacer.fields else 1),
            sample_aspect_ratio=shape,
            tags=_tags_after_conversion(pixels, frame.height, ColourTags.of(frame)),
            decoder=decoder,
        )
        self._say_what_is_special(frame)
        return self._format

    def _refuse_above_limit(self, width: int, height: int) -> None:
        most_width, most_height = self._max_size
        if width > most_width or height > most_height:
            raise SourceUnusable(
                f"picture of {width}×{height} is above the limit of {most_width}×{most_height}"
            )

    def _say_interlaced(self, frame: av.VideoFrame) -> None:
        if frame.sw_format is not None:
            self._log.warning("source is interlaced", deinterlaced=False, reason="its pictures are on a GPU")
        elif self._deinterlaced:
            self._log.info("source is interlaced", deinterlaced=True)
        else:
            self._log.warning("source is interlaced", deinterlaced=False, reason="deinterlace is off")

    def _say_what_is_special(self, frame: av.VideoFrame) -> None:
        if self._on_gpu:
            self._say_where_decoded(frame)
        elif frame.format.name not in _NATIVE:
            self._log.warning("source converted", pixel_format=frame.format.name, converted_to="yuv420p")
        if frame.rotation:
            if surface_of(frame):
                self._log.warning("source not turned", degrees=frame.rotation, reason="not done on a GPU")
            else:
                self._log.info("source turned", degrees=frame.rotation)
        if frame.width % 2 or frame.height % 2:
            self._log.info("source padded to even sides", size=f"{frame.width}x{frame.height}")

    def _say_where_decoded(self, frame: av.VideoFrame) -> None:
        if frame.sw_format is None:
            self._log.warning(
                "decoding on the CPU", codec=self._context.name, reason="NVDEC does not take this stream"
            )
        elif surface_of(frame) is None:
            self._log.warning(
                "pictures leave the GPU",
                reason=f"NVDEC gives {frame.sw_format.name}",
                size=f"{frame.width}x{frame.height}",
            )
        else:
            self._log.info("decoding on NVDEC")


def _is_grey(form: VideoFormat) -> bool:
    return form.name.startswith(("gray", "ya"))


def _tags_after_conversion(form: VideoFormat, height: int, tags: ColourTags) -> ColourTags:
    """RGB becomes limited-range YUV by the matrix usual for its size; YUV keeps its own range and matrix.

    Grey of unknown range is full range, as libav has it: decoders of limited-range codecs do say so.
    """
    if form.is_rgb:
        matrix = MATRIX_BT709 if usual_matrix(height) == "bt709" else MATRIX_BT601
        return replace(tags, range=RANGE_LIMITED, matrix=matrix)
    full = form.name.startswith("yuvj") or (_is_grey(form) and not tags.range)
    return replace(tags, range=RANGE_FULL) if full else tags
