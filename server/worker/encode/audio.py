"""The sound: AAC as the source has it, or made of it, for HLS; Opus, made once, for WebRTC."""

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.codec.context import Flags
from av.packet import Packet
from msgspec.structs import replace

from server.wire.messages import AUDIO_CLOCK_HZ, AudioCodec, AudioFormat, AudioPacket, DropReason
from server.worker.encode.adts import adts_format, audio_specific_config, split_adts

_OPUS_SAMPLES = 960  # 20 ms
_AAC_SAMPLES = 1024
# Timestamps that wander less than this are the source's jitter; what comes further off is a gap or a jump.
_JITTER_S = 0.04

# Silence: of a source that has not been heard for so long, and so much at once at most.
_QUIET_S, _MOST_SILENCE_S = 0.5, 2.0
_SILENT_OPUS = b"\xfc\xff\xfe"  # RFC 6716: 20 ms of CELT, stereo, with nothing in it
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}


class Encoder:
    """Decoded sound → packets of one codec in frames of a fixed length, on the 48 kHz clock."""

    def __init__(
        self, codec: AudioCodec, *, layout: str, rate_hz: int, samples: int, bitrate_bps: int
    ) -> None:
        self._codec: AudioCodec = codec
        self._samples = samples
        self._rate_hz = rate_hz
        context = av.CodecContext.create("libopus" if codec == "opus" else "aac", "w")
        assert isinstance(context, AudioCodecContext)
        sample_format = "flt" if codec == "opus" else "fltp"
        context.sample_rate, context.layout, context.format = rate_hz, layout, sample_format
        context.bit_rate = bitrate_bps
        context.time_base = Fraction(1, rate_hz)
        if codec == "opus":
            context.options = {"frame_duration": "20", "application": "audio"}
        else:
            context.flags |= Flags.global_header  # raw access units, their config in extradata
        context.open()
        self._context = context
        self._open_resampler = partial(AudioResampler, sample_format, layout, rate_hz)
        self._resampler: AudioResampler | None = None
        self._input: tuple[str, str, int] | None = None  # what the resampler takes
        self._fifo = AudioFifo()
        self._offset_s: float | None = None  # when sample 0 is presented
        self._taken = 0  # samples given to the encoder

    @property
    def config(self) -> bytes:
        return self._context.extradata or b""

    def encode(self, frame: AudioFrame, presentation_s: float) -> Iterator[AudioPacket]:
        """The packets that this frame completes."""
        offset_s = presentation_s - (self._taken + self._fifo.samples) / self._rate_hz
        if self._offset_s is None or abs(offset_s - self._offset_s) > _JITTER_S:
            self._offset_s = offset_s
        for resampled in self._resample(frame):
            # One that needed no resampling still has the source's clock, and the queue takes only one clock.
            resampled.pts, resampled.time_base = None, Fraction(1, self._rate_hz)
            self._fifo.write(resampled)
        while self._fifo.samples >= self._samples:
            block = self._fifo.read(self._samples)
            assert block is not None
            block.pts, block.time_base = self._taken, Fraction(1, self._rate_hz)
            self._taken += self._samples
            for packet in self._context.encode(block):
                # libav counts an encoder's delay as negative time, which keeps sound and picture in step.
                start_s = self._offset_s + float((packet.pts or 0) * packet.time_base)
                yield AudioPacket(
                    codec=self._codec,
                    pts=round(start_s * AUDIO_CLOCK_HZ),
                    duration=self._samples * AUDIO_CLOCK_HZ // self._rate_hz,
                    payload=bytes(packet),
                )

    def _resample(self, frame: AudioFrame) -> list[AudioFrame]:
        """The frame as the encoder takes it. Broadcasts change between mono, stereo and surround, and a
        resampler takes only what it began with: another one follows what the last one still held."""
        form = frame.format.name, frame.layout.name, frame.sample_rate
        held: list[AudioFrame] = []
        if self._resampler is None or form != self._input:
            held = self._resampler.resample(None) if self._resampler is not None else []
            self._resampler, self._input = self._open_resampler(), form
        return held + self._resampler.resample(frame)


class SoundOrder:
    """Puts packets behind each other without overlap, and silence where the source has nothing to say. It
    outlives the openings of a source, and is for any thread."""

    def __init__(self, after: int | None = None) -> None:
        """No sound starts before `after`."""
        self._ends: dict[AudioCodec, int] = {} if after is None else {"aac": after, "opus": after}
        self._heard_s = -_QUIET_S
        self._aac_duration = _AAC_SAMPLES
        self._silent_aac: dict[int, bytes] = {}  # by channels
        self._lock = threading.Lock()

    def put(self, packet: AudioPacket, send: Callable[[AudioPacket], None]) -> bool:
        """Sends it; jitter is closed up. False for a step back in time, which is left out."""
        with self._lock:
            self._heard_s = time.monotonic()
            if packet.codec == "aac":
                self._aac_duration = packet.duration
            end = self._ends.get(packet.codec)
            if end is not None and abs(packet.pts - end) <= _JITTER_S * AUDIO_CLOCK_HZ:
                packet = replace(packet, pts=end)
            elif end is not None and packet.pts < end:
                return False
            self._ends[packet.codec] = packet.pts + packet.duration
            send(packet)
            return True

    def fill(self, until_s: float, form: AudioFormat, send: Callable[[AudioPacket], None]) -> None:
        """Sends silence of that format up to there, unless the source is heard."""
        until = round(until_s * AUDIO_CLOCK_HZ)
        with self._lock:
            if time.monotonic() - self._heard_s < _QUIET_S:
                return
            silent_aac = self._silent_aac.get(form.channels)
            if silent_aac is None:
                silent_aac = self._silent_aac[form.channels] = _silent_aac(form.channels)
            kinds: list[tuple[AudioCodec, int, bytes]] = [
                ("opus", _OPUS_SAMPLES, _SILENT_OPUS),
                ("aac", self._aac_duration, silent_aac),
            ]
            for codec, duration, payload in kinds:
                # Who has heard nothing for longer has not listened.
                pts = max(self._ends.get(codec, 0), until - round(_MOST_SILENCE_S * AUDIO_CLOCK_HZ))
                while payload and pts + duration <= until:
                    send(AudioPacket(codec=codec, pts=pts, duration=duration, payload=payload))
                    pts += duration
                    self._ends[codec] = pts


class AudioPublisher:
    """Sound of one opening of a source. `present(seconds, arrival)` is the picture's own timeline."""

    def __init__(
        self,
        context: AudioCodecContext,
        *,
        present: Callable[[float | None, int], float],
        send: Callable[[AudioPacket], None],
        on_drop: Callable[[DropReason], None],
        order: SoundOrder | None = None,
    ) -> None:
        """`order`: that of all openings."""
        self._context = context
        self._present = present
        self._send = send
        self._on_drop = on_drop
        self._order = order or SoundOrder()
        self._opus = Encoder(
            "opus", layout="stereo", rate_hz=AUDIO_CLOCK_HZ, samples=_OPUS_SAMPLES, bitrate_bps=96_000
        )
        self._aac: Encoder | None = None
        config = _copied_config(context)
        if config:
            self.format = AudioFormat(config=config, rate_hz=context.sample_rate, channels=context.channels)
        else:
            channels = min(context.channels or 1, 2)
            self._aac = Encoder(
                "aac",
                layout="stereo" if channels == 2 else "mono",
                rate_hz=AUDIO_CLOCK_HZ,
                samples=_AAC_SAMPLES,
                bitrate_bps=64_000 * channels,
            )
            self.format = AudioFormat(config=self._aac.config, rate_hz=AUDIO_CLOCK_HZ, channels=channels)

    def push(self, packet: "Packet[av.AudioStream]", arrival_ns: int) -> None:
        """Sends what the packet holds as AAC and as Opus. Must be called in the order of arrival."""
        if self._aac is None and packet.size:
            self._copy(packet, arrival_ns)
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError:
            self._on_drop("corrupt")
            return
        for frame in frames:
            start_s = (
                None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
            )
            presentation_s = self._present(start_s, arrival_ns)
            for encoder in (self._opus, self._aac):
                if encoder is not None:
                    for made in encoder.encode(frame, presentation_s):
                        self._send_in_order(made)

    def _copy(self, packet: "Packet[av.AudioStream]", arrival_ns: int) -> None:
        payload = bytes(packet)
        framed = None if self._context.extradata else split_adts(payload)
        if framed is not None:
            config, payload = framed
            if config != self.format.config:
                self.format = adts_format(config)
        start_s = None if packet.pts is None else float(packet.pts * packet.time_base)
        seconds = float((packet.duration or 0) * packet.time_base) or _AAC_SAMPLES / self._context.sample_rate
        self._send_in_order(
            AudioPacket(
                codec="aac",
                pts=round(self._present(start_s, arrival_ns) * AUDIO_CLOCK_HZ),
                duration=round(seconds * AUDIO_CLOCK_HZ),
                payload=payload,
            )
        )

    def _send_in_order(self, packet: AudioPacket) -> None:
        if not self._order.put(packet, self._send):
            self._on_drop("overlap")


def _silent_aac(channels: int) -> bytes:
    """An access unit of AAC-LC without a sound, at any sample rate; empty for channels that libav has no
    usual layout of."""
    layout = _LAYOUTS.get(channels)
    if layout is None:
        return b""
    encoder = Encoder(
        "aac", layout=layout, rate_hz=AUDIO_CLOCK_HZ, samples=_AAC_SAMPLES, bitrate_bps=64_000 * channels
    )
    frame = AudioFrame("fltp", layout, 4 * _AAC_SAMPLES)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.sample_rate = AUDIO_CLOCK_HZ
    return list(encoder.encode(frame, 0.0))[-1].payload


def _copied_config(context: AudioCodecContext) -> bytes:
    """The AudioSpecificConfig of AAC that can go on as it is; empty where it must be encoded."""
    if context.codec.canonical_name != "aac":
        return b""
    if context.extradata:
        return context.extradata
    try:  # ADTS: what libav has found out; the first packet's own header corrects it
        return audio_specific_config(object_type=2, rate_hz=context.sample_rate, channels=context.channels)
    except ValueError:
        return b""
