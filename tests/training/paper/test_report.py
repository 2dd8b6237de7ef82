"""Table 5 says what the paper says, and stands beside what was measured: as table, CSV, plot and crops."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.config import paper_config
from server.__main__ import main
from training.data.resize import downscale, upscale_bicubic
from training.paper.comparison import Row, Score, image_table, to_csv
from training.paper.tables import SETS, System, others, table_5
from training.paper.tradeoff import plot_tradeoff
from training.report.crops import CAPTION, GAP, Crop


def system(name: str, scale: int) -> System:
    (found,) = [row for row in table_5(scale) if row.name == name]
    return found


@pytest.mark.parametrize(
    ("name", "scale", "figures"),
    [
        ("AWSRN-S", 2, "37.75/.9596 33.31/.9151 32.00/.8974 31.39/.9207 37.90/.9755"),
        ("AWSRN-SD", 2, "37.86/.9600 33.41/.9161 32.00/.8974* 31.67/.9237 38.20/.9762"),
        ("AWSRN-M", 2, "38.04/.9605 33.66/.9181 32.21/.9000 32.23/.9294 38.66/.9772"),
        ("AWSRN", 2, "38.11/.9608 33.78/.9189 32.26/.9006 32.49/.9316 38.87/.9776"),
        ("AWSRN-SD", 3, "34.18/.9273 30.21/.8398* 28.99/.8027 27.80/.8444 33.13/.9416"),
        ("AWSRN-SD", 4, "31.98/.8921 28.46/.7786 27.48/.7368 25.74/.7746 30.09/.9024"),
        ("AWSRN", 4, "32.20/.8960* 28.69/.7843 27.61/.7385* 26.29/.7930 30.72/.9109"),
        ("AWSRN", 8, "26.97/.7747 24.99/.6414 24.80/.5967 22.45/.6174 24.60/.7782"),
        ("FSRCNN", 3, "33.16/.9140 29.43/.8242 28.53/.7910 26.43/.8080 30.98/.9212"),
    ],
)
def test_table_5_spot_checks(name: str, scale: int, figures: str) -> None:
    cells = system(name, scale).cells
    for set_name, text in zip(SETS, figures.split(), strict=True):
        psnr_db, ssim = text.rstrip("*").split("/")
        cell = cells[set_name]
        assert (cell.psnr_db, cell.ssim) == (float(psnr_db), float(ssim)), set_name
        assert cell.damaged == text.endswith("*"), set_name


def test_those_that_only_the_text_names_stand_behind_table_5() -> None:
    rows = [Row.of_paper(row) for row in (*table_5(2), *others(2))]
    lines = image_table([ROWS[0], *rows], ["Set5"]).text().splitlines()
    (rcan,) = [line.split() for line in lines if line.startswith("RCAN")]
    assert rcan == ["RCAN", "its", "paper", "–", "–", "38.27/0.9614"]


def test_table_5_is_whole_and_plausible() -> None:
    assert {scale: len(table_5(scale)) for scale in (2, 3, 4, 8)} == {2: 20, 3: 15, 4: 17, 8: 7}
    assert "Manga109" not in system("CARN", 2).cells  # not reported
    assert system("CARN", 2).size_damaged
    for scale in (2, 3, 4, 8):
        names = [row.name for row in table_5(scale)]
        assert len(names) == len(set(names))
        for row in table_5(scale):
            for cell in row.cells.values():
                assert cell.damaged or (20 < cell.psnr_db < 40 and 0.5 < cell.ssim < 1), (row, cell)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_table_5_has_the_sizes_that_our_networks_have(scale: int) -> None:
    for row in table_5(scale):
        if row.name.startswith("AWSRN"):
            config = paper_config(row.name.lower(), scale)
            assert row.parameters == pytest.approx(config.parameters, abs=1000)
            assert row.mult_adds == pytest.approx(config.mult_adds, abs=0.06e9)


def measured_row(name: str, psnr_db: float, mult_adds: float | None) -> Row:
    return Row(
        name=name,
        engine="reference float32",
        scale=2,
        parameters=None if mult_adds is None else 25_700,
        mult_adds=mult_adds,
        scores={"Set5": Score(psnr_db=psnr_db, ssim=0.9566, images=5)},
        videos={},
    )


ROWS = [
    measured_row("bicubic", 33.673, None),
    measured_row("runs/live_x2/checkpoint.safetensors", 36.98, 5.9e9),
    *map(Row.of_paper, table_5(2)),
]


def test_text_and_markdown_put_the_paper_beside() -> None:
    table = image_table(ROWS, ["Set5"])
    text = table.text().splitlines()
    assert text[0].split() == ["×2", "engine", "params", "Mult-Adds", "Set5", "(5)"]
    assert text[1].split() == ["bicubic", "reference", "float32", "–", "–", "33.67/0.9566"]
    assert text[2].split() == ["live_x2/checkpoint", "reference", "float32", "25.7K", "5.9G", "36.98/0.9566"]
    assert "AWSRN-SD            paper                 348K      79.6G  37.86/0.9600" in text
    assert len({len(line) for line in text[:-2]}) == 1
    assert text[-2].startswith("* ")  # CARN's parameters are damaged
    assert any(line.startswith("FALSR-A† ") for line in text)
    assert text[-1].startswith("† found by a search")
    markdown = table.markdown().splitlines()
    assert markdown[0] == "| ×2 | engine | params | Mult-Adds | Set5 (5) |"
    assert markdown[1] == "| --- | --- | ---: | ---: | ---: |"
    assert r"| live\_x2/checkpoint | reference float32 | 25.7K | 5.9G | 36.98/0.9566 |" in markdown
    assert all(line.count("|") == 6 for line in markdown[: len(ROWS) + 2])


def test_csv_has_a_line_for_each_system_and_set() -> None:
    lines = list(csv.DictReader(to_csv(ROWS, ["Set5", "Set14"]).splitlines()))
    assert len(lines) == 2 + 2 * 20
    assert lines[0]["mult_adds"] == ""
    assert (lines[1]["psnr_db"], lines[1]["images"]) == ("36.98", "5")
    assert {line["model"] for line in lines if line["searched"] == "1"} == {
        "FALSR-A", "FALSR-B", "FALSR-C", "MoreMNAS-A",
    }  # fmt: skip
    assert {line["model"] for line in lines if line["size_damaged"] == "1"} == {"CARN"}
    (sd,) = [line for line in lines if line["model"] == "AWSRN-SD" and line["set"] == "Set14"]
    assert (sd["engine"], sd["psnr_db"], sd["ssim"], sd["images"]) == ("paper", "33.41", "0.9161", "")


def test_the_plot_is_a_picture_of_a_panel_for_each_set(tmp_path: Path) -> None:
    paper = [Row.of_paper(row) for row in table_5(2)]
    plot_tradeoff(ROWS[:2], paper, ["Set5"], tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert (image.format, image.size) == ("PNG", (1200, 900))
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 50


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """96×80, flat but for one corner of noise, which bicubic can't bring back."""
    (tmp_path / "set").mkdir()
    pixels = np.full((80, 96, 3), 120, np.uint8)
    pixels[48:64, 64:80] = np.random.default_rng(0).integers(0, 255, (16, 16, 3))
    Image.fromarray(pixels).save(tmp_path / "set" / "flat.png")
    return tmp_path / "set" / "flat.png"


def test_crops_show_hr_bicubic_and_each_model(photograph: Path, tmp_path: Path) -> None:
    options = ["--model", "lanczos", "--scale", "2", "--set", f"A={photograph.parent}"]
    assert main(["evaluate", *options, "--crops", str(tmp_path / "crops"), "--crop", "60,40,32,32"]) == 0
    with Image.open(tmp_path / "crops" / "A-flat-x2.png") as image:
        shown = np.asarray(image)
    # The whole image as high as the panels, then three panels of 32×32 enlarged eight times.
    whole = round(256 * 96 / 80)
    assert shown.shape == (256 + CAPTION, whole + 3 * (GAP + 256), 3)
    hr = np.asarray(Image.open(photograph))
    bicubic = upscale_bicubic(downscale(hr, 2), 2)
    for index, pixels in enumerate((hr, bicubic)):
        left = whole + GAP + index * (256 + GAP)
        panel = shown[:256:8, left : left + 256 : 8]
        assert np.array_equal(panel, pixels[40:72, 60:92])


def test_without_a_crop_the_hardest_part_is_shown(photograph: Path, tmp_path: Path) -> None:
    options = ["--model", "bicubic", "--scale", "2", "--set", f"A={photograph.parent}"]
    assert main(["evaluate", *options, "--crops", str(tmp_path / "crops")]) == 0
    with Image.open(tmp_path / "crops" / "A-flat-x2.png") as image:
        shown = np.asarray(image)
    side, factor = 80 // 4, 256 // 20
    whole = round(factor * side * 96 / 80)
    assert shown.shape == (factor * side + CAPTION, whole + 2 * (GAP + factor * side), 3)
    panel = shown[: factor * side, whole + GAP : whole + GAP + factor * side]
    assert panel.std() > 30


def test_a_crop_outside_the_image_is_refused(
    photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", "bicubic", "--scale", "2", "--set", f"A={photograph.parent}"]
    assert main(["evaluate", *options, "--crops", str(tmp_path), "--crop", "80,0,32,32"]) == 2
    assert "crop 80,0,32,32 must lie within flat, which is 96×80" in capsys.readouterr().err
    with pytest.raises(ValueError, match="x,y,w,h"):
        Crop.parse("1,2,3")
    with pytest.raises(ValueError, match="8×8 or more"):
        Crop.parse("0,0,4,4")
