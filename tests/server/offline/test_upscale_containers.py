"""`livesr upscale` over containers and timings: every picture, its time, and all the sound."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch

from engine.config import live_config
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import save_checkpoint
from server.__main__ import main
from server.worker.ingest.synthetic import read_frame_number
from server.worker.process.picture import plane_view
from tests.server.clips import write_clip
from tests.server.offline.test_upscale_command import skip_network

FRAMES, FPS = 30, 30
# FLV and Matroska count in milliseconds, and MP4 does where a track begins late.
TICK_S = Fraction(1, 1000)
CODECS = {
    ".mp4": ("libx264", "aac"),
    ".mov": ("libx264", "aac"),
    ".mkv": ("libx264", "libopus"),
    ".webm": ("libvpx", "libopus"),
    ".ts": ("libx264", "aac"),
    ".mts": ("libx265", "ac3"),
    ".flv": ("libx264", "aac"),
    ".nut": ("libx264", "aac"),
    ".mpg": ("mpeg2video", "mp2"),
    ".avi": ("mpeg4", "mp2"),
}
VFR = [0, 300, 1500, 4500, 9000, 9300, 54000, 57003, 58500, 60000, 60300, 150_000, 153_000, 156_000]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "y.safetensors"
    save_checkpoint(path, skip_network(Awsrn(live_config(awrus=1))), {"recipe": "none"})
    return path


def clip(path: Path, **options: Any) -> Path:
    codec, audio = CODECS[path.suffix]
    given = {"codec": codec, "audio": audio, "frames": FRAMES, "fps": FPS, "b_frames": 2} | options
    return write_clip(path, width=160, height=96, **given)


def upscaled(source: Path, suffix: str, model: Path) -> Path:
    target = source.with_name(f"out{suffix}")
    assert main(["upscale", str(source), str(target), "--model", str(model), "--preset", "veryfast"]) == 0
    return target


def pictures(path: Path, scale: int) -> tuple[list[int], list[Fraction]]:
    """Numbers and seconds, in the order of a plain decoder."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return (
        [read_frame_number(plane_view(frame, 0), scale) for frame in frames],
        [frame.pts * frame.time_base for frame in frames],
    )


def sound(path: Path) -> tuple[list[bytes], list[Fraction]]:
    """Payloads without what MPEG-TS frames AAC by, and seconds."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    payloads = [bytes(packet) for packet in packets]
    return (
        [payload[7:] if payload.startswith(b"\xff\xf1") else payload for payload in payloads],
        [packet.pts * packet.time_base for packet in packets],
    )


def moved(before: list[Fraction], after: list[Fraction]) -> list[Fraction]:
    return [new - old for old, new in zip(before, after, strict=True)]


def check_kept(source: Path, target: Path, numbers: list[int]) -> list[Fraction]:
    """All pictures and all sound are there; returns how much later each of them comes."""
    (found, before_s), (kept, after_s) = pictures(source, 1), pictures(target, 2)
    assert found == numbers
    assert kept == numbers
    (payloads, sound_before_s), (copied, sound_after_s) = sound(source), sound(target)
    assert len(payloads) > 10
    assert copied == payloads
    return moved(before_s, after_s) + moved(sound_before_s, sound_after_s)


@pytest.mark.parametrize("audio_first", [True, False])
@pytest.mark.parametrize("suffix", CODECS)
def test_every_container_gives_all_its_pictures(tmp_path, model, suffix, audio_first):
    shorter_or_longer_s = FRAMES / FPS + (-0.4 if audio_first else 0.6)
    source = clip(tmp_path / f"in{suffix}", audio_first=audio_first, audio_s=shorter_or_longer_s)
    target = upscaled(source, ".mkv", model)
    later_s = check_kept(source, target, list(range(FRAMES)))
    # Matroska holds no negative time: the whole file comes later there, by the encoder's delay at most.
    assert max(later_s) - min(later_s) <= TICK_S
    assert -TICK_S <= min(later_s) < 0.03


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts", ".flv"])
def test_a_variable_rate_keeps_all_times_in_the_same_container(tmp_path, model, suffix):
    timing = {"pts": VFR, "time_base": Fraction(1, 90_000), "frames": len(VFR)}
    source = clip(tmp_path / f"in{suffix}", audio_first=True, audio_s=1.2, **timing)
    later_s = check_kept(source, upscaled(source, suffix, model), list(range(len(VFR))))
    assert max(map(abs, later_s)) <= TICK_S


@pytest.mark.parametrize("target", [".mp4", ".ts", ".mkv"])
@pytest.mark.parametrize("start", [-7, 12])
def test_an_edit_list_is_obeyed(tmp_path, model, start, target):
    """MP4 writes one that cuts what lies before zero, and one that waits for a picture that comes late."""
    source = clip(tmp_path / "in.mp4", pts=range(start, start + FRAMES), audio_first=True, audio_s=0.5)
    later_s = check_kept(source, upscaled(source, target, model), list(range(max(-start, 0), FRAMES)))
    assert max(later_s) - min(later_s) <= TICK_S


def test_avi_gives_all_its_pictures_in_order_though_it_has_no_times_for_b_frames(tmp_path, model):
    source = clip(tmp_path / "in.avi", codec="libx264")
    before_s = pictures(source, 1)[1]
    assert before_s != sorted(before_s), "the demuxer has only the order of decoding"
    target = upscaled(source, ".mp4", model)
    check_order(target, sorted(before_s))
    assert sound(target)[0] == sound(source)[0]


def test_an_avi_keeps_its_pictures_in_order(tmp_path, model):
    source = clip(tmp_path / "in.mp4", audio="mp2")
    target = upscaled(source, ".avi", model)
    check_order(target, pictures(source, 1)[1])
    assert sound(target)[0] == sound(source)[0]


def check_order(target: Path, expected_s: list[Fraction]) -> None:
    numbers, after_s = pictures(target, 2)
    assert numbers == list(range(FRAMES))
    assert after_s == sorted(after_s)
    assert max(map(abs, moved(expected_s, after_s))) <= Fraction(2, FPS)
