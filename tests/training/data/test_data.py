"""Pictures of every kind become pairs whose LR and HR show the same thing; what does not fit is named."""

import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from engine.sample_frames import sample_frames
from tests.conftest import shared
from training.data.degrade import Compression, LiveSource, compress, degrade_live, degrade_still
from training.data.images import image_files, read_rgb
from training.data.pairs import AROUND, DataConfig, PackedPairs, PatchSampler, read_pairs, to_network
from training.data.resize import downscale, upscale_bicubic
from training.quality import psnr, rgb_to_y


def picture(height: int = 160, width: int = 192, seed: int = 0) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 255, (height // 16, width // 16, 3))
    return np.kron(blocks, np.ones((16, 16, 1))).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, mode: str = "RGB") -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_patches_are_exact_crops_and_follow_from_seed_and_iteration(tmp_path: Path) -> None:
    save(tmp_path / "hr" / "a.png", picture())
    pairs = PackedPairs(DataConfig(folder=tmp_path / "hr", scale=2), tmp_path / "cache", lr_patch=16)
    sampler = PatchSampler(pairs, 16, (7, 0))
    drawn = sampler.batch(8, 3)
    lr, hr = drawn.lr, drawn.hr
    assert (lr.shape, hr.shape) == ((8, 16, 16, 3), (8, 32, 32, 3))
    inner = slice(4, -4)  # the resizing filter reaches over a patch's edge
    for small, large in zip(lr, hr, strict=True):
        difference = downscale(large, 2)[inner, inner].astype(int) - small[inner, inner]
        assert np.abs(difference).max() <= 1  # a turned patch is rounded in the other order of passes
    again = PatchSampler(pairs, 16, (7, 0)).batch(8, 3)
    assert np.array_equal(lr, again.lr)
    assert not np.array_equal(lr, sampler.batch(8, 4).lr)


def test_around_a_patch_is_more_of_its_picture_and_it_is_told_which_are_compressed(tmp_path: Path) -> None:
    save(tmp_path / "hr" / "a.png", picture(400, 384))  # LR has a side that is smaller than what is asked for
    config = DataConfig(folder=tmp_path / "hr", scale=2, degrade="live")
    pairs = PackedPairs(config, tmp_path / "cache", lr_patch=16)
    drawn = PatchSampler(pairs, 16, (7, 0), around=True).batch(12, 3)
    assert drawn.around is not None
    assert drawn.around.shape == (12, AROUND, AROUND, 3)
    for patch, around in zip(drawn.lr, drawn.around, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(around[..., 0], (16, 16))
        assert (windows == patch[..., 0]).all((2, 3)).any()
    inner = slice(4, -4)
    of_hr = (downscale(hr, 2)[inner, inner].astype(int) for hr in drawn.hr)
    differs = [np.abs(hr - lr[inner, inner]).max() > 1 for hr, lr in zip(of_hr, drawn.lr, strict=True)]
    assert drawn.compressed.tolist() == differs
    assert 0 < sum(differs) < 12
    luma = to_network(drawn.lr, "y")
    assert torch.equal(luma, luma.round())
    assert (to_network(drawn.lr, "y", exact=True) - luma).abs().max() > 0.1
    assert PatchSampler(pairs, 16, (7, 0)).batch(1, 3).around is None


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "I;16"])
def test_any_mode_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    if mode == "I;16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "x.png")
    else:
        Image.fromarray(grey).convert("L" if mode == "P" else "RGB").convert(mode).save(tmp_path / "x.tif")
    read = read_rgb(next(tmp_path.iterdir()))
    assert read.shape == (64, 64, 3)
    assert np.abs(read[..., 1].astype(int) - grey).max() <= 3


def test_frames_of_a_video_are_pictures(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as out:
        stream = out.add_stream("libx264", 25)
        stream.width, stream.height, stream.pix_fmt = 192, 160, "yuv420p"
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(picture(seed=index // 25), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    found = list(read_pairs(DataConfig(folder=tmp_path, scale=2), lr_patch=48))
    assert len(found) == 2
    assert not np.array_equal(found[0].lr, found[1].lr)


def test_given_lr_is_used_and_must_fit(tmp_path: Path) -> None:
    save(tmp_path / "hr" / "a.png", picture())
    lr_file = save(tmp_path / "lr" / "ax2.png", np.full((80, 96, 3), 9, np.uint8))
    config = DataConfig(folder=tmp_path / "hr", scale=2, lr_folder=tmp_path / "lr")
    assert (next(iter(read_pairs(config, lr_patch=48))).lr == 9).all()
    save(lr_file, np.zeros((80, 90, 3), np.uint8))
    with pytest.raises(ValueError, match=r"ax2\.png is 90×80, ×2 of it must be 192×160"):
        list(read_pairs(config, lr_patch=48))
    lr_file.unlink()
    with pytest.raises(ValueError, match=r"lr holds no LR of a\.png"):
        list(read_pairs(config, lr_patch=48))


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_compression_is_real_and_worse_at_higher_crf(codec: str) -> None:
    frames = [picture(96, 128)] * 3

    def quality(crf: int) -> float:
        how = Compression(codec=codec, crf=crf, preset="ultrafast")  # type: ignore[arg-type]
        return psnr(rgb_to_y(compress(frames, how)[-1]), rgb_to_y(frames[-1]))

    assert 20 < quality(40) < quality(20) < 60


def test_a_degraded_still_shows_what_its_offset_says() -> None:
    lr = downscale(picture(320, 384), 2)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        frame, y, x = degrade_still(lr, [Compression.draw(rng)], rng)
        height, width = frame.shape[:2]
        assert height % 2 == 0
        assert width % 2 == 0

        here, right, below = (
            psnr(rgb_to_y(frame[:-1, :-1]), rgb_to_y(lr[top:, left:][: height - 1, : width - 1]))
            for top, left in ((y, x), (y, x + 1), (y + 1, x))
        )
        assert here > max(right, below)


def test_degraded_pairs_show_the_same_thing(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(320, 384))
    pairs = list(read_pairs(DataConfig(folder=tmp_path, scale=2, degrade="h264"), lr_patch=48))
    for pair in pairs:
        assert tuple(2 * side for side in pair.lr.shape[:2]) == pair.hr.shape[:2]
        assert psnr(rgb_to_y(upscale_bicubic(pair.lr, 2)), rgb_to_y(pair.hr)) > 20
        # A network would learn to make up for what the conversions do to the level.
        assert rgb_to_y(pair.lr).mean() == pytest.approx(rgb_to_y(pair.hr).mean(), abs=0.3)
    assert len({pair.lr.tobytes() for pair in pairs}) == len(pairs) == 3, "each is compressed otherwise"


def bomb(png: bytes) -> bytes:
    """Its header says 30000×30000."""
    header = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + png[24:29]
    return png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]


def test_bad_folders_and_files_are_named(tmp_path: Path) -> None:
    def pack(folder: Path) -> PackedPairs:
        return PackedPairs(DataConfig(folder=folder, scale=2), tmp_path / "cache", lr_patch=48)

    with pytest.raises(ValueError, match="none is no folder"):
        pack(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no image or video"):
        pack(tmp_path / "empty")
    broken = tmp_path / "broken"
    broken.mkdir()
    Image.fromarray(picture()).save(broken / "x.png")
    whole = (broken / "x.png").read_bytes()
    for damaged in (b"no image", whole[:200], bomb(whole)):
        (broken / "x.png").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.png is no readable image"):
            pack(broken)
        with pytest.raises(ValueError, match=r"x\.png is no readable image"):
            sample_frames(broken)
    Image.new("RGB", (51, 120)).save(broken / "x.png")
    with pytest.raises(ValueError, match=r"x\.png is 51×120, smaller than 96×96, which the crop needs"):
        pack(broken)
    (broken / "x.png").unlink()
    (broken / "x.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"x\.mp4 is no readable video"):
        pack(broken)
    assert not list((tmp_path / "cache").glob("*.partial"))


def thumbnail(path: Path) -> np.ndarray:
    small = np.asarray(Image.open(path).convert("L").resize((24, 24), Image.Resampling.BOX), dtype=np.float64)
    return (small - small.mean()) / (small.std() + 1e-6)


@pytest.mark.parametrize("training", ["train", "train_more"])
def test_no_training_image_is_a_benchmark_image(training: str) -> None:
    judged = [f for name in ("Set5/HR", "Set14/HR", "kodak") for f in image_files(shared(f"data/{name}"))]
    known = {file.name: thumbnail(file) for file in judged}
    for file in image_files(shared(f"data/{training}")):
        mine = thumbnail(file)
        alike = [name for name, its in known.items() if float((mine * its).mean()) > 0.95]
        assert not alike, f"{file.name} looks like {alike}"


def test_live_pairs_are_clean_once_and_degraded_otherwise(tmp_path: Path) -> None:
    hr = picture(320, 384)
    save(tmp_path / "a.png", hr)
    pairs = list(read_pairs(DataConfig(folder=tmp_path, scale=2, degrade="live"), lr_patch=48))
    assert len(pairs) == 3
    assert np.array_equal(pairs[0].lr, downscale(hr, 2))
    for pair in pairs[1:]:
        assert pair.hr.shape == (2 * pair.lr.shape[0], 2 * pair.lr.shape[1], 3)
        error = psnr(rgb_to_y(pair.lr), rgb_to_y(downscale(pair.hr, 2)))
        assert 18 < error < 60  # of the same place, and not the same


def test_what_a_lens_blurs_is_as_soft_in_hr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hr = picture(320, 384)
    best = Compression(codec="libx264", crf=1, preset="medium")
    soft = LiveSource(kernel="bicubic", blur=2.0, noise=0.0, generations=(best,))
    monkeypatch.setattr(LiveSource, "draw", lambda rng: soft)
    lr, of_it = degrade_live(hr, 2, np.random.default_rng(0))
    assert psnr(rgb_to_y(downscale(of_it, 2)), rgb_to_y(lr)) > 38
