"""AAC as containers need it: AudioSpecificConfig (ISO/IEC 14496-3), access units without ADTS headers."""

from server.wire.messages import AudioFormat

_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


def audio_specific_config(*, object_type: int, rate_hz: int, channels: int) -> bytes:
    """Two bytes for the usual profiles. Raises ValueError for what an ADTS header could not say either."""
    if rate_hz not in _RATES:
        raise ValueError(f"AAC {rate_hz = } must be one of {_RATES}")
    layout = 7 if channels == 8 else channels
    if not 1 <= layout <= 7 or not 1 <= object_type <= 4:
        raise ValueError(f"AAC {object_type = } must be from 1 to 4 and {channels = } one of 1-6, 8")
    return (object_type << 11 | _RATES.index(rate_hz) << 7 | layout << 3).to_bytes(2, "big")


def adts_format(config: bytes) -> AudioFormat:
    """The format that an AudioSpecificConfig of `split_adts` stands for."""
    value = int.from_bytes(config, "big")
    layout = value >> 3 & 15
    # 0: the channels are told within the stream; one is the least that a track can have.
    return AudioFormat(
        config=config, rate_hz=_RATES[value >> 7 & 15], channels=8 if layout == 7 else max(layout, 1)
    )


def split_adts(data: bytes) -> tuple[bytes, bytes] | None:
    """(AudioSpecificConfig, raw access unit) of one ADTS frame; None where it is none."""
    if len(data) < 7 or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
        return None
    object_type, rate, layout = (data[2] >> 6) + 1, data[2] >> 2 & 15, (data[2] & 1) << 2 | data[3] >> 6
    size = (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5
    header = 7 if data[1] & 1 else 9
    if rate >= len(_RATES) or not header < size <= len(data):
        return None
    return (object_type << 11 | rate << 7 | layout << 3).to_bytes(2, "big"), data[header:size]
