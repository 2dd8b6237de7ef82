"""The benchmarks' layouts are found, and the LR that comes with them is what a network gets."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.resize import downscale
from training.judge.sets import SetFolder, find, load

RNG = np.random.default_rng(0)


def save(path: Path, width: int, height: int) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        ("HR/baby.png", "LR_bicubic/X2/babyx2.png"),
        ("GTmod12/baby.png", "LRbicx2/baby.png"),
        ("image_SRF_2/baby_SRF_2_HR.png", "image_SRF_2/baby_SRF_2_LR.png"),
    ],
)
def test_given_lr_is_used(tmp_path: Path, hr: str, lr: str) -> None:
    # 41 is not a multiple of 2: HR is cropped to what the LR shows.
    pixels, given = save(tmp_path / hr, 41, 36), save(tmp_path / lr, 20, 18)
    (file,) = find(SetFolder(name="Set5", hr=tmp_path), 2)
    image = load(file, 2)
    assert (image.name, image.lr_given) == ("baby", True)
    assert np.array_equal(image.lr, given)
    assert np.array_equal(image.hr, pixels[:, :40])


def test_lr_is_made_where_none_fits(tmp_path: Path) -> None:
    pixels = save(tmp_path / "HR" / "baby.png", 40, 36)
    save(tmp_path / "LR_bicubic" / "X2" / "babyx2.png", 19, 18)
    for scale in (2, 4):
        (file,) = find(SetFolder(name="Set5", hr=tmp_path), scale)
        image = load(file, scale)
        assert not image.lr_given
        assert np.array_equal(image.lr, downscale(pixels, scale))


def test_a_plain_folder_and_a_pair_of_folders(tmp_path: Path) -> None:
    for name in ("matrix2.png", "b.png"):
        save(tmp_path / "hr" / name, 40, 40)
    assert [f.name for f in find(SetFolder(name="mine", hr=tmp_path / "hr"), 2)] == ["b", "matri"]
    for name in ("b_LRBI_x2.png", "matrix2_LRBI_x2.png"):
        save(tmp_path / "lr" / name, 20, 20)
    pair = SetFolder(name="mine", hr=tmp_path / "hr", lr=tmp_path / "lr")
    assert all(load(file, 2).lr_given for file in find(pair, 2))


def test_grey_images_are_repeated(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 40, 40)
    Image.open(tmp_path / "a.png").convert("L").save(tmp_path / "a.png")
    (file,) = find(SetFolder(name="grey", hr=tmp_path), 2)
    image = load(file, 2)
    assert image.hr.shape == (40, 40, 3)
    assert np.array_equal(image.lr[..., 0], image.lr[..., 2])


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    pair = SetFolder(name="mine", hr=tmp_path / "hr", lr=tmp_path / "lr")
    save(tmp_path / "hr" / "a.png", 40, 40)
    save(tmp_path / "lr" / "b.png", 20, 20)
    with pytest.raises(ValueError, match=r"a\.png has no LR image in .*lr"):
        find(pair, 2)
    save(tmp_path / "lr" / "a.png", 21, 20)
    with pytest.raises(ValueError, match=r"a\.png is 21×20, must be 20×20"):
        load(find(pair, 2)[0], 2)
    save(tmp_path / "hr" / "a_HR.png", 40, 40)
    with pytest.raises(ValueError, match=r"a_HR\.png and .*a\.png are both named 'a'"):
        find(pair, 2)
    for width, height in ((14, 40), (1, 1)):
        save(tmp_path / "small" / "tiny.png", width, height)
        with pytest.raises(ValueError, match=rf"tiny\.png is {width}×{height}, too small"):
            load(find(SetFolder(name="small", hr=tmp_path / "small"), 2)[0], 2)
