"""The picture and the sound of a stream as tracks of MP4, and their samples."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.gateway.h264 import ParameterSets
from server.wire.messages import AUDIO_CLOCK_HZ, AudioPacket, Opened, Rendition


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoTrack:
    parameter_sets: ParameterSets
    width: int
    height: int
    sample_aspect_ratio: tuple[int, int]

    @property
    def codec(self) -> str:
        return self.parameter_sets.codec


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioTrack:
    config: bytes  # AudioSpecificConfig
    rate_hz: int
    channels: int

    @property
    def codec(self) -> str:
        return aac_codec(self.config)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One access unit; times tick at the track's clock."""

    time: int
    duration: int
    sync: bool
    data: bytes


def aac_codec(config: bytes) -> str:
    """By RFC 6381, as in `mp4a.40.2`, of an AudioSpecificConfig."""
    first = int.from_bytes(config[:2].ljust(2, b"\0"), "big")
    object_type = first >> 11
    return f"mp4a.40.{object_type if object_type != 31 else 32 + (first >> 5 & 0x3F)}"


def tracks_of(
    opened: Opened | None, rendition: Rendition, parameter_sets: ParameterSets
) -> tuple[VideoTrack, AudioTrack | None] | None:
    """What the worker says of them; None where it says nothing of that rendition."""
    form = next((f for f in opened.renditions if f.name == rendition), None) if opened else None
    if opened is None or form is None:
        return None
    video = VideoTrack(
        parameter_sets=parameter_sets,
        width=form.width,
        height=form.height,
        sample_aspect_ratio=opened.source.sample_aspect_ratio,
    )
    audio = opened.audio
    if audio is None:
        return video, None
    return video, AudioTrack(config=audio.config, rate_hz=audio.rate_hz, channels=audio.channels)


def sound_samples(track: AudioTrack | None, packets: Sequence[AudioPacket]) -> list[Sample]:
    """Those of packets that follow each other; none where there is no such track."""
    if track is None:
        return []
    times = [p.pts * track.rate_hz // AUDIO_CLOCK_HZ for p in packets]
    if packets:
        times.append((packets[-1].pts + packets[-1].duration) * track.rate_hz // AUDIO_CLOCK_HZ)
    return [
        Sample(time=times[i], duration=max(0, times[i + 1] - times[i]), sync=True, data=packet.payload)
        for i, packet in enumerate(packets)
    ]
