"""A deterministic moving picture that carries its frame number in luma blocks, and a steady tone."""

import binascii
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from engine.frame import Plane, YuvFrame
from server.wire.clock import now_ns
from server.wire.synthetic import SyntheticFormat
from server.worker.ingest.source import Arrival, Times, Tracks

SAMPLE_RATE_HZ = 48_000
TONE_HZ = 440
_TONE_SAMPLES = 1200  # eleven whole periods: every packet is the same

# 40 bits in two rows: the frame number, then a checksum, most significant first.
_BITS_PER_ROW, _ROWS = 20, 2
_DARK, _BRIGHT = 40, 210


def synthetic_frame(number: int, form: SyntheticFormat) -> YuvFrame:
    """Frame `number`: diagonal waves that move a pixel a frame, with the number in the top left corner."""
    y_down, y_up, u_phase, v_phase = _phases(form.width, form.height)
    step = np.uint8(number & 255)
    y = _HALF_WAVE[y_down + step + step] + _HALF_WAVE[y_up - step]
    _write_number(y, number)
    return YuvFrame(y=y, u=_WAVE[u_phase + step], v=_WAVE[v_phase - step])


_WAVE = (128 + 80 * np.sin(np.arange(256) * (2 * np.pi / 256))).astype(np.uint8)
_HALF_WAVE = _WAVE // 2


@cache
def _phases(width: int, height: int) -> tuple[Plane, Plane, Plane, Plane]:
    """Phases: where on the wave each sample of frame 0 is, in 256ths: twice luma, then u and v."""
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    half_rows, half_columns = rows[: height // 2], columns[:, : width // 2]
    phases = (
        columns * 3 + rows,
        rows * 5 - columns,
        2 * (half_columns + half_rows),
        2 * (half_columns - half_rows),
    )
    down, up, u, v = (phase.astype(np.uint8) for phase in phases)
    return down, up, u, v


def _block(width: int) -> int:
    return width // _BITS_PER_ROW // 2 * 2


def _write_number(y: Plane, number: int) -> None:
    payload = (number & 0xFFFF_FFFF).to_bytes(4, "big")
    bits = np.unpackbits(np.frombuffer(payload + bytes([_checksum(payload)]), np.uint8))
    block = _block(y.shape[1])
    values = np.where(bits.reshape(_ROWS, _BITS_PER_ROW), _BRIGHT, _DARK).astype(np.uint8)
    y[: _ROWS * block, : _BITS_PER_ROW * block] = values.repeat(block, 0).repeat(block, 1)


def _checksum(number: bytes) -> int:
    """Neither an all dark nor an all bright corner is a number."""
    return binascii.crc_hqx(number, 0xFFFF) & 0xFF


def read_frame_number(y: Plane, scale: int = 1) -> int | None:
    """The number in a luma plane (h, w), upscaled by `scale` and coded since; None where it can't be read."""
    block = _block(y.shape[1] // scale) * scale
    if block < 4 or y.shape[0] < _ROWS * block:
        return None
    corner = y[: _ROWS * block, : _BITS_PER_ROW * block].reshape(_ROWS, block, _BITS_PER_ROW, block)
    # The middle of each block: its edges are where resampling and the codec smear.
    middle = corner[:, block // 4 : block - block // 4, :, block // 4 : block - block // 4]
    bits = middle.mean(axis=(1, 3)) > (_DARK + _BRIGHT) / 2
    payload = np.packbits(bits.reshape(-1)).tobytes()
    if _checksum(payload[:4]) != payload[4]:
        return None
    return int.from_bytes(payload[:4], "big")


class SyntheticSource:
    """Frame n is due at n/fps seconds of CLOCK_MONOTONIC: numbers go on over a restart, and whoever reads one
    on the same machine knows how old the frame is."""

    def __init__(self, form: SyntheticFormat, *, stop: threading.Event) -> None:
        self._form = form
        self._stop = stop

    def open(self) -> Tracks:
        video = av.CodecContext.create("rawvideo", "r")
        assert isinstance(video, VideoCodecContext)
        video.width, video.height, video.pix_fmt = self._form.width, self._form.height, "yuv420p"
        audio = av.CodecContext.create("pcm_s16le", "r")
        assert isinstance(audio, AudioCodecContext)
        audio.sample_rate, audio.layout = SAMPLE_RATE_HZ, "mono"
        return Tracks(video=video, fps=float(self._form.fps), sample_aspect_ratio=(1, 1), audio=audio)

    def arrivals(self) -> Iterator[Arrival]:
        fps, tone = self._form.fps, _tone()
        number = int(time.monotonic() * fps) + 1
        samples = int(time.monotonic() * SAMPLE_RATE_HZ) // _TONE_SAMPLES * _TONE_SAMPLES
        while not self._stop.is_set():
            due_s = float(number / fps)
            late_s = time.monotonic() - due_s
            if late_s > 1:  # a camera does not deliver what it had no time for
                number = int(time.monotonic() * fps) + 1
                continue
            if late_s < 0:
                self._stop.wait(-late_s)
            yield self._picture(number)
            number += 1
            while samples / SAMPLE_RATE_HZ < due_s:
                yield _arrival(tone, samples, _TONE_SAMPLES, Fraction(1, SAMPLE_RATE_HZ), video=False)
                samples += _TONE_SAMPLES

    def _picture(self, number: int) -> Arrival:
        frame = synthetic_frame(number, self._form)
        data = frame.y.tobytes() + frame.u.tobytes() + frame.v.tobytes()
        return _arrival(data, number, 1, 1 / self._form.fps, video=True)

    def close(self) -> None:
        pass


def _arrival(data: bytes, start: int, duration: int, time_base: Fraction, *, video: bool) -> Arrival:
    packet = Packet(data)
    packet.pts = packet.dts = start
    packet.duration, packet.time_base = duration, time_base
    packet.is_keyframe = True
    return Arrival(video=video, packet=packet, times=Times.at(now_ns()))


def _tone() -> bytes:
    phase = np.arange(_TONE_SAMPLES) * (2 * np.pi * TONE_HZ / SAMPLE_RATE_HZ)
    return bytes((3000 * np.sin(phase)).astype("<i2"))
