"""Fragmented MP4: init segments of a video and an audio track, and media segments (ISO/IEC 14496-12)."""

import struct
from collections.abc import Sequence

from server.gateway.mp4.tracks import AudioTrack, Sample, VideoTrack
from server.wire.messages import VIDEO_CLOCK_HZ

VIDEO_TRACK, AUDIO_TRACK = 1, 2
_MATRIX = struct.pack("!9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_SYNC_SAMPLE, _OTHER_SAMPLE = 0x02000000, 0x01010000
_TRUN_FLAGS = 0x000701  # data offset; each sample's duration, size and flags
_DEFAULT_BASE_IS_MOOF = 0x020000
# The sample tables of `moov`, each with its counts of nothing: the samples are in the fragments.
_NO_SAMPLES = ((b"stts", 4), (b"stsc", 4), (b"stsz", 8), (b"stco", 4))


def init_segment(video: VideoTrack, audio: AudioTrack | None) -> bytes:
    """`ftyp` and `moov`."""
    tracks = [_video_trak(video)] + ([_audio_trak(audio)] if audio else [])
    ids = (VIDEO_TRACK, AUDIO_TRACK)[: len(tracks)]
    mvhd = _full(
        b"mvhd", 0, 0, struct.pack("!IIIIIHxx8x", 0, 0, 1000, 0, 0x10000, 0x100), _MATRIX, bytes(24), _u32(3)
    )
    mvex = _box(b"mvex", *(_full(b"trex", 0, 0, struct.pack("!5I", i, 1, 0, 0, 0)) for i in ids))
    ftyp = _box(b"ftyp", b"iso6", _u32(0), b"iso6", b"cmfc", b"mp41")
    return ftyp + _box(b"moov", mvhd, *tracks, mvex)


def media_segment(number: int, video: Sequence[Sample], audio: Sequence[Sample]) -> bytes:
    """`moof` and `mdat`; the video comes first in both."""
    tracks = [(VIDEO_TRACK, video)] + ([(AUDIO_TRACK, audio)] if audio else [])
    # The offsets into `mdat` depend on the size of `moof`, which does not depend on the offsets.
    moof_bytes = len(_moof(number, tracks, 0))
    moof = _moof(number, tracks, moof_bytes + 8)
    return moof + _box(b"mdat", *(sample.data for _, samples in tracks for sample in samples))


def _moof(number: int, tracks: Sequence[tuple[int, Sequence[Sample]]], offset: int) -> bytes:
    trafs = []
    for track, samples in tracks:
        tfhd = _full(b"tfhd", 0, _DEFAULT_BASE_IS_MOOF, _u32(track))
        tfdt = _full(b"tfdt", 1, 0, struct.pack("!Q", samples[0].time))
        entries = (
            struct.pack("!III", s.duration, len(s.data), _SYNC_SAMPLE if s.sync else _OTHER_SAMPLE)
            for s in samples
        )
        trun = _full(b"trun", 0, _TRUN_FLAGS, struct.pack("!II", len(samples), offset), *entries)
        trafs.append(_box(b"traf", tfhd, tfdt, trun))
        offset += sum(len(sample.data) for sample in samples)
    return _box(b"moof", _full(b"mfhd", 0, 0, _u32(number)), *trafs)


def _video_trak(track: VideoTrack) -> bytes:
    horizontal, vertical = track.sample_aspect_ratio
    entry = struct.pack("!6xH16xHHIIIH", 1, track.width, track.height, 0x480000, 0x480000, 0, 1)
    entry += bytes(32) + struct.pack("!Hh", 24, -1)
    avc1 = _box(
        b"avc1",
        entry,
        _box(b"avcC", track.parameter_sets.avcc()),
        _box(b"pasp", struct.pack("!II", horizontal, vertical)),
    )
    shown_width = round(track.width * horizontal / vertical * 0x10000)
    size = struct.pack("!II", min(shown_width, 0xFFFFFFFF), track.height << 16)
    return _trak(VIDEO_TRACK, VIDEO_CLOCK_HZ, b"vide", _full(b"vmhd", 0, 1, bytes(8)), avc1, size, 0)


def _audio_trak(track: AudioTrack) -> bytes:
    # ISO/IEC 14496-1: an ES descriptor around a decoder configuration around the AudioSpecificConfig.
    specific = _descriptor(5, track.config)
    decoder = _descriptor(4, struct.pack("!BB3xII", 0x40, 0x15, 0, 0), specific)
    esds = _full(
        b"esds", 0, 0, _descriptor(3, struct.pack("!HB", AUDIO_TRACK, 0), decoder, _descriptor(6, b"\2"))
    )
    rate = min(track.rate_hz, 0xFFFF)
    mp4a = _box(b"mp4a", struct.pack("!6xH8xHH4xI", 1, track.channels, 16, rate << 16), esds)
    smhd = _full(b"smhd", 0, 0, bytes(4))
    return _trak(AUDIO_TRACK, track.rate_hz, b"soun", smhd, mp4a, bytes(8), 0x100)


def _trak(
    track: int, clock_hz: int, handler: bytes, header: bytes, entry: bytes, shape: bytes, volume: int
) -> bytes:
    tkhd = _full(b"tkhd", 0, 3, struct.pack("!III4xI8xHHH2x", 0, 0, track, 0, 0, 0, volume), _MATRIX, shape)
    mdhd = _full(b"mdhd", 0, 0, struct.pack("!IIIIHH", 0, 0, clock_hz, 0, 0x55C4, 0))
    hdlr = _full(b"hdlr", 0, 0, struct.pack("!I4s12x", 0, handler), b"livesr\0")
    dinf = _box(b"dinf", _full(b"dref", 0, 0, _u32(1), _full(b"url ", 0, 1)))
    empty = [_full(kind, 0, 0, bytes(size)) for kind, size in _NO_SAMPLES]
    stbl = _box(b"stbl", _full(b"stsd", 0, 0, _u32(1), entry), *empty)
    return _box(b"trak", tkhd, _box(b"mdia", mdhd, hdlr, _box(b"minf", header, dinf, stbl)))


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack("!I4s", len(body) + 8, kind) + body


def _full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(kind, _u32(version << 24 | flags), *parts)


def _descriptor(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    assert len(body) < 128, "one length byte"
    return bytes([tag, len(body)]) + body


def _u32(value: int) -> bytes:
    return struct.pack("!I", value)
