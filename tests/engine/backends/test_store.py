"""The cache of TensorRT engines on disk: what is found, what serves, and what was measured."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.backends.tensorrt.request import BuildRequest, Sizes
from engine.backends.tensorrt.store import (
    MANIFEST,
    add_to_timing_cache,
    artifacts_folder,
    faster_int8,
    find_artifact,
    find_fitting_artifact,
    known_performance,
    read_timing_cache,
    remove_artifact,
    save_artifact,
)
from engine.frame import Colour
from tests.engine.backends.artifacts import FACTS, REQUEST, TARGET, corrupt_engine, measured, performance


def test_every_fact_that_decides_an_engine_is_in_its_key() -> None:
    rgb = replace(REQUEST, kind="rgb")
    others = [
        REQUEST,
        replace(REQUEST, checkpoint_sha256="cd" * 32),
        replace(REQUEST, batches=(1, 2)),
        replace(REQUEST, precision="int8"),
        replace(REQUEST, sizes=Sizes.only(640, 480)),
        replace(REQUEST, sizes=Sizes(smallest=(64, 64), typical=(640, 360), largest=(1920, 1080))),
        *(replace(REQUEST, target=replace(TARGET, **{name: "other"})) for name in TARGET.__slots__),
        rgb,
        replace(rgb, colour=Colour(full_range=True)),
    ]
    assert len({request.digest for request in others}) == len(others)
    assert replace(REQUEST, checkpoint=Path("elsewhere.safetensors")).digest == REQUEST.digest
    assert replace(REQUEST, colour=Colour(full_range=True)).digest == REQUEST.digest
    for request in others:
        assert BuildRequest.from_json(request.to_json()) == request


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sizes.only(641, 360), "size 641x360 must have even sides"),
        (
            lambda: Sizes(smallest=(64, 64), typical=(32, 64), largest=(96, 96)),
            "64x64 is larger than 32x64",
        ),
        (lambda: replace(REQUEST, batches=(1, 3)), r"batches=\(1, 3\) must be the first of \(1, 2, 4, 8\)"),
        (lambda: replace(REQUEST, batches=()), r"batches=\(\) must be the first of"),
        (lambda: replace(REQUEST, precision="bf16"), "precision='bf16' must be one of fp16, int8"),
        (lambda: Sizes.parse("640x360:"), "size '' must be WIDTHxHEIGHT"),
        (lambda: Sizes.parse("64x64:96x96"), "must be WIDTHxHEIGHT or SMALLEST:TYPICAL:LARGEST"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_dynamic_artifact_says_which_sizes_it_takes() -> None:
    sizes = Sizes(smallest=(64, 64), typical=(640, 360), largest=(1920, 1080))
    assert Sizes.parse(str(sizes)) == sizes
    assert Sizes.parse("640x360") == Sizes.only(640, 360)
    assert sizes.takes(64, 1080)
    assert not sizes.takes(1922, 1080)
    assert not sizes.takes(64, 62)
    assert not Sizes.only(640, 360).takes(640, 358)


def test_an_artifact_for_many_sizes_serves_each_that_has_none_of_its_own(folder: Path) -> None:
    sizes = Sizes(smallest=(64, 64), typical=(640, 360), largest=(1280, 720))
    dynamic = save_artifact(
        replace(REQUEST, sizes=sizes), folder, b"dynamic", measured(_64x64=4, _640x360=2, _1280x720=1)
    )
    (folder / "foreign").mkdir()
    (folder / "foreign" / MANIFEST).write_text("[]")
    assert find_fitting_artifact(REQUEST, folder) == dynamic
    assert find_fitting_artifact(replace(REQUEST, sizes=Sizes.only(1920, 1080)), folder) is None
    assert find_fitting_artifact(replace(REQUEST, target=replace(TARGET, gpu="Tesla T4")), folder) is None
    own = save_artifact(REQUEST, folder, b"static", FACTS)
    assert find_fitting_artifact(REQUEST, folder) == own
    corrupt_engine(folder / REQUEST.digest)
    assert find_fitting_artifact(REQUEST, folder) == dynamic
    two_at_once = save_artifact(replace(REQUEST, sizes=sizes, batches=(1, 2)), folder, b"two at once", FACTS)
    assert find_fitting_artifact(REQUEST, folder) == two_at_once


def test_what_was_measured_is_known_before_anything_is_loaded(folder: Path) -> None:
    """And at a size between two that were measured, what is known is that of the larger one."""
    sizes = Sizes(smallest=(64, 64), typical=(640, 360), largest=(1280, 720))
    facts = measured(_64x64=4, _640x360=2, _1280x720=1)
    artifact = save_artifact(replace(REQUEST, sizes=sizes), folder, b"dynamic", facts)
    (folder / "other").mkdir()
    (folder / "other" / MANIFEST).write_text("{}")
    of = {"checkpoint_sha256": REQUEST.checkpoint_sha256, "gpu": TARGET.gpu}
    for size, lanes in {(64, 64): 4, (320, 180): 2, (640, 360): 2, (960, 540): 1, (1280, 720): 1}.items():
        width, height = size
        assert artifact.performance(width, height) == performance(lanes)
        assert known_performance(folder, **of, width=width, height=height) == performance(lanes)
    assert known_performance(folder, **of, width=1920, height=1080) is None
    assert known_performance(folder, **of | {"gpu": "Tesla T4"}, width=640, height=360) is None


@pytest.mark.parametrize(
    ("parity_db", "frame_ms", "fp16_is_there", "preferred"),
    [
        (55.0, 3.0, True, True),
        (55.0, 5.0, True, False),  # it is slower
        (49.9, 3.0, True, False),  # it is another picture
        (55.0, 5.0, False, True),
    ],
)
def test_int8_runs_where_it_was_built_and_is_faster(
    folder: Path, parity_db: float, frame_ms: float, fp16_is_there: bool, preferred: bool
) -> None:
    assert faster_int8(REQUEST, folder) is None
    if fp16_is_there:
        save_artifact(REQUEST, folder, b"half", FACTS)
    assert faster_int8(REQUEST, folder) is None
    usual = performance()
    driven = replace(usual.surface, frame_ms=usual.surface.frame_ms | {2: frame_ms})
    found = replace(usual, parity_db=parity_db, surface=driven).to_dict()
    facts = {"gpu": TARGET.gpu, "performance": {"640x360": found}}
    int8 = save_artifact(replace(REQUEST, precision="int8"), folder, b"int8", facts)
    assert faster_int8(REQUEST, folder) == (int8 if preferred else None)
    assert find_fitting_artifact(REQUEST, folder) != int8


def test_an_engine_for_every_gpu_serves_where_the_gpu_has_none_of_its_own(folder: Path) -> None:
    target = TARGET.any_gpu()
    assert target is not None
    assert target.portable
    portable = save_artifact(replace(REQUEST, target=target), folder, b"portable", FACTS)
    other = replace(TARGET, gpu="NVIDIA A10", compute_capability="8.6")
    turing = replace(TARGET, gpu="Tesla T4", compute_capability="7.5")
    assert turing.any_gpu() is None
    for request in (REQUEST, replace(REQUEST, target=other)):
        assert find_fitting_artifact(request, folder) == portable
    assert find_fitting_artifact(replace(REQUEST, target=turing), folder) is None
    assert find_fitting_artifact(replace(REQUEST, target=replace(TARGET, torch="2.14")), folder) is None
    of = {"checkpoint_sha256": REQUEST.checkpoint_sha256, "width": 640, "height": 360}
    assert known_performance(folder, gpu=TARGET.gpu, **of) == performance()
    assert known_performance(folder, gpu=other.gpu, **of) is None, "it was measured elsewhere"
    own = save_artifact(REQUEST, folder, b"own", FACTS)
    assert find_fitting_artifact(REQUEST, folder) == own


def test_what_another_process_has_built_meanwhile_is_not_removed(folder: Path) -> None:
    old = save_artifact(REQUEST, folder, b"old", FACTS)
    corrupt_engine(folder / REQUEST.digest)
    assert find_artifact(REQUEST, folder) is None
    new = save_artifact(REQUEST, folder, b"new", FACTS)
    remove_artifact(old)
    assert find_artifact(REQUEST, folder) == new
    remove_artifact(new)
    assert find_artifact(REQUEST, folder) is None


def test_a_damaged_timing_cache_is_not_used(folder: Path) -> None:
    assert read_timing_cache(TARGET, folder) == b""
    folder.mkdir()
    add_to_timing_cache(TARGET, folder, b"timings", both)
    assert read_timing_cache(TARGET, folder) == b"timings"
    assert read_timing_cache(replace(TARGET, tensorrt="11.0.2"), folder) == b""
    (path,) = folder.glob("timing-*.bin")
    path.write_bytes(path.read_bytes()[:-1])
    assert read_timing_cache(TARGET, folder) == b""


def both(kept: bytes, measured: bytes) -> bytes:
    """As TensorRT would, slowly."""
    time.sleep(0.02)
    return kept + measured


def test_what_several_builds_measured_is_all_kept(folder: Path) -> None:
    """Two GPUs of one kind build beside each other, and share a timing cache."""
    folder.mkdir()
    measured = [bytes([number]) for number in range(1, 9)]
    threads = [
        threading.Thread(target=add_to_timing_cache, args=(TARGET, folder, one, both)) for one in measured
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_timing_cache(TARGET, folder)) == list(range(1, 9))


def test_where_artifacts_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIVESR_ARTIFACTS", str(tmp_path))
    assert artifacts_folder() == tmp_path
    monkeypatch.delenv("LIVESR_ARTIFACTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert artifacts_folder() == tmp_path / "livesr" / "artifacts"
