"""Files of strangers: what lies in a folder of theirs leads to no other file and no address."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from server.wire.source_policy import SourcePolicy
from tests.server.clips import write_clip
from tests.server.worker.test_policy import count_pictures, forbidden, opened, playlist, read_all

__all__ = ["forbidden"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a stranger may put files; secrets lie beside it."""
    folder = tmp_path / "clips"
    folder.mkdir()
    write_clip(tmp_path / "secret.ts", frames=5)
    write_clip(tmp_path / "secret.mp4", frames=5)
    return folder


@pytest.fixture
def policy(folder: Path) -> SourcePolicy:
    return SourcePolicy(schemes=("file",), hosts=(), folders=(str(folder),), listen_ports=())


@pytest.fixture(autouse=True)
def closes_what_it_opens() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "flv"])
def test_containers_play_as_ever(folder, policy, suffix):
    path = write_clip(folder / f"a: 100%.{suffix}", frames=30, audio="aac")
    assert count_pictures(opened(str(path), policy), 100) == 30


@pytest.mark.parametrize("how", ["plain", "encrypted", "ranges", "fragments"])
def test_hls_inside_of_the_folder_plays(folder, policy, tmp_path, how):
    clip = write_clip(tmp_path / "clip.mp4", frames=50)
    (folder / "key.ts").write_bytes(b"0123456789abcdef")
    (tmp_path / "info").write_text(f"key.ts\n{folder / 'key.ts'}\n")
    options = {
        "plain": [],
        "encrypted": ["-hls_key_info_file", str(tmp_path / "info")],
        "ranges": ["-hls_flags", "single_file"],
        "fragments": ["-hls_segment_type", "fmp4"],
    }[how]
    hls = ["-f", "hls", "-hls_time", "0.4", "-hls_list_size", "0", *options, str(folder / "a.m3u8")]
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(clip), "-c", "copy", *hls]
    subprocess.run(ffmpeg, check=True, stdin=subprocess.DEVNULL)
    assert count_pictures(opened(str(folder / "a.m3u8"), policy), 100) == 50


@pytest.mark.parametrize("url", ["../secret.ts", "{out}/secret.ts", "file:{out}/secret.ts", "link.ts"])
def test_a_playlist_leads_to_no_file_outside(folder, policy, tmp_path, url):
    (folder / "link.ts").symlink_to(tmp_path / "secret.ts")
    (folder / "a.m3u8").write_bytes(playlist(url.format(out=tmp_path))[2])
    assert "sources.folders" in read_all(opened(str(folder / "a.m3u8"), policy))
    assert "the end" in read_all(opened(str(folder / "a.m3u8"), policy=None))


def test_nor_does_a_file_that_is_missing_outside_read_otherwise(folder, policy):
    reasons = set()
    for name in ("secret", "none"):
        (folder / "a.m3u8").write_bytes(playlist(f"../{name}.ts")[2])
        reasons.add(read_all(opened(str(folder / "a.m3u8"), policy)))
    assert len(reasons) == 1


def test_a_playlist_leads_to_no_address(folder, policy, forbidden):
    where, callers = forbidden
    (folder / "a.m3u8").write_bytes(playlist(f"http://{where}/a.ts")[2])
    assert "is no file" in read_all(opened(str(folder / "a.m3u8"), policy))
    assert not callers


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ffconcat", "ffconcat version 1.0\nfile '../secret.mp4'\n"),
        ("b.ffconcat", "ffconcat version 1.0\nfile 'inside.mp4'\n"),
        ("a.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 33\n"),
        ("a.mpd", '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>'),
    ],
)
def test_scripts_open_nothing(folder, policy, name, content):
    write_clip(folder / "inside.mp4", frames=5)
    (folder / name).write_text(content)
    assert "is no media file" in read_all(opened(str(folder / name), policy))


def test_a_sequence_of_pictures_reads_no_link_to_outside(folder, policy, tmp_path):
    picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24").to_image()
    for path in (folder / "a%d.png", folder / "a0.png", tmp_path / "secret.png"):
        picture.save(path)
    (folder / "a1.png").symlink_to(tmp_path / "secret.png")
    assert "sources.folders" in read_all(opened(str(folder / "a%d.png"), policy))


def test_a_named_pipe_is_not_waited_for(folder, policy):
    os.mkfifo(folder / "pipe.ts")
    (folder / "a.m3u8").write_bytes(playlist("pipe.ts")[2])
    assert read_all(opened(str(folder / "a.m3u8"), policy)) != "the end"
