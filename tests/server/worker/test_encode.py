import logging
import re
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from server.wire.logs import get_logger
from server.wire.synthetic import SyntheticFormat
from server.worker.encode.h264 import EncoderFormat, H264Encoder, choose_encoder, usual_bitrate_bps
from server.worker.ingest.synthetic import read_frame_number, synthetic_frame
from server.worker.process.picture import ColourTags, frame_from_planes, plane_view
from tests.logs import events

LOG = get_logger("test")
FORMAT = EncoderFormat(
    encoder="libx264",
    preset="ultrafast",
    width=320,
    height=180,
    fps=25,
    bitrate_bps=1_000_000,
    keyframe_interval_s=1.0,
    sample_aspect_ratio=(1, 1),
    tags=ColourTags(range=1, matrix=1, primaries=1, transfer=1),
)
START = 10**6 * 90_000  # a machine that has been up for days


def picture(number: int, form: EncoderFormat = FORMAT) -> av.VideoFrame:
    planes = synthetic_frame(number, SyntheticFormat(width=form.width, height=form.height))
    return frame_from_planes(planes, form.width, form.height)


def nal_types(payload: bytes) -> list[int]:
    """Of an Annex B access unit."""
    starts = [i + 3 for i in range(len(payload) - 3) if payload[i : i + 3] == b"\0\0\1"]
    return [payload[i] & 31 for i in starts]


def encode(encoder: H264Encoder, pts: list[int], form: EncoderFormat = FORMAT):
    return [encoder.encode(picture(number, form), START + p) for number, p in enumerate(pts)]


def test_each_frame_in_is_one_packet_out_with_its_own_pts():
    pts = [0, 3600, 4000, 12_345, 90_000, 90_001]
    out = encode(H264Encoder(FORMAT), pts)
    assert [[e.pts for e in es] for es in out] == [[START + p] for p in pts]


def test_keyframes_come_each_interval_and_each_brings_sps_and_pps():
    out = [e for [e] in encode(H264Encoder(FORMAT), [3600 * n for n in range(60)])]
    assert [n for n, e in enumerate(out) if e.keyframe] == [0, 25, 50]
    for encoded in out:
        types = nal_types(encoded.payload)
        assert encoded.payload.startswith((b"\0\0\0\1", b"\0\0\1"))
        if encoded.keyframe:
            assert types[:2] == [7, 8]
            assert 5 in types
        else:
            assert 5 not in types
            assert 7 not in types


def test_keyframe_on_request_starts_the_interval_again():
    encoder = H264Encoder(FORMAT)
    keyframes = []
    for number in range(60):
        if number == 10:
            encoder.request_keyframe()
        [encoded] = encoder.encode(picture(number), START + 3600 * number)
        if encoded.keyframe:
            keyframes.append(number)
    assert keyframes == [0, 10, 35]


def test_a_cut_alone_is_no_keyframe():
    encoder = H264Encoder(FORMAT)
    keyframes = []
    for number in range(20):
        frame = picture(number)
        if number >= 10:
            plane_view(frame, 0)[60:] = 255 - plane_view(frame, 0)[60:]
        [encoded] = encoder.encode(frame, START + 3600 * number)
        keyframes.append(encoded.keyframe)
    assert keyframes == [True] + [False] * 19


def test_a_source_frames_own_type_does_not_force_the_encoder():
    encoder = H264Encoder(FORMAT)
    kinds = []
    for number in range(5):
        frame = picture(number)
        frame.pict_type = av.video.frame.PictureType.I
        kinds += [e.keyframe for e in encoder.encode(frame, START + number * 3600)]
    assert kinds == [True, False, False, False, False]


def test_decoded_again_it_is_the_picture_with_its_colours_and_shape():
    form = replace(
        FORMAT,
        width=322,
        height=182,
        sample_aspect_ratio=(16, 11),
        tags=ColourTags(range=2, matrix=6, primaries=5, transfer=6),
    )
    decoder = av.CodecContext.create("h264", "r")
    frames = []
    for encoded in encode(H264Encoder(form), [n * 3600 for n in range(10)], form):
        frames += decoder.decode(av.Packet(encoded[0].payload))
    frames += decoder.decode(None)
    assert [read_frame_number(plane_view(f, 0)) for f in frames] == list(range(10))
    assert (frames[0].width, frames[0].height) == (322, 182)
    assert decoder.sample_aspect_ratio == Fraction(16, 11)
    tags = [frames[0].color_range, frames[0].colorspace, frames[0].color_primaries, frames[0].color_trc]
    assert tags == [2, 6, 5, 6]
    original = synthetic_frame(9, SyntheticFormat(width=322, height=182))
    error = plane_view(frames[9], 0).astype(float) - original.y
    assert 10 * np.log10(255**2 / (error**2).mean()) > 30


def test_no_frame_is_reordered():
    form = replace(FORMAT, preset="medium")
    encoder = H264Encoder(form)
    types = []
    for out in encode(encoder, [n * 3600 for n in range(30)]):
        [encoded] = out
        types += nal_types(encoded.payload)
    assert set(types) <= {1, 5, 6, 7, 8}
    assert len(out) == 1


def test_bitrate_is_capped():
    form = replace(FORMAT, bitrate_bps=400_000, keyframe_interval_s=10)
    rng = np.random.default_rng(0)
    encoder = H264Encoder(form)
    size = 0
    for number in range(100):
        frame = picture(number)
        plane_view(frame, 0)[:] = rng.integers(0, 256, (180, 320), np.uint8)  # the hardest picture
        [encoded] = encoder.encode(frame, START + number * 3600)
        size += len(encoded.payload) if number >= 25 else 0
    assert size * 8 / 3 < 1.3 * 400_000


def test_usual_bitrate_grows_with_the_picture_within_bounds():
    assert usual_bitrate_bps(64, 64, 25) == 300_000
    assert usual_bitrate_bps(1280, 720, 25) == round(1280 * 720 * 25 * 0.15)
    assert usual_bitrate_bps(1280, 720, 0) == usual_bitrate_bps(1280, 720, 25)
    assert usual_bitrate_bps(7680, 4320, 60) == 20_000_000


def nvenc_opens() -> bool:
    """As FFmpeg itself finds on this machine."""
    codec = av.CodecContext.create("h264_nvenc", "w")
    codec.width, codec.height, codec.pix_fmt = 256, 144, "yuv420p"
    codec.time_base = Fraction(1, 25)
    try:
        codec.open()
    except av.FFmpegError:
        return False
    return True


def test_auto_is_nvenc_where_it_opens_and_else_says_why_not(caplog):
    caplog.set_level(logging.INFO)
    if nvenc_opens():
        assert choose_encoder("auto", "ultrafast", LOG) == "h264_nvenc"
    else:
        assert choose_encoder("auto", "ultrafast", LOG) == "libx264"
        [said] = events(caplog, "encoder chosen")
        assert said["encoder"] == "libx264"
        assert re.match(r"no NVENC: \w", said["reason"])


def test_the_encoder_that_was_asked_for_is_taken_without_a_look_at_others(caplog):
    caplog.set_level(logging.INFO)
    assert choose_encoder("libx264", "medium", LOG) == "libx264"
    assert not caplog.messages


def test_an_encoder_that_is_none():
    with pytest.raises(ValueError, match="encoder='vp8' must be auto, libx264 or h264_nvenc"):
        choose_encoder("vp8", "ultrafast", LOG)


def test_a_preset_that_is_none():
    with pytest.raises(ValueError, match="preset='warp' must be one of x264's"):
        choose_encoder("libx264", "warp", LOG)


def test_an_encoder_that_this_machine_lacks_is_refused_with_the_reason():
    if nvenc_opens():
        pytest.skip("this machine has NVENC")
    with pytest.raises(ValueError, match=r"encoder='h264_nvenc' does not open on this machine: \w"):
        choose_encoder("h264_nvenc", "ultrafast", LOG)
