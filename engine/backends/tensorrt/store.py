"""TensorRT engines on disk: whole or not there, and never run unless they are what was asked for.

    FOLDER/DIGEST/engine.plan       what TensorRT serialized
    FOLDER/DIGEST/manifest.json     what it was built of, for and by, and what it does
    FOLDER/timing-DIGEST.bin        how fast each kernel was on that GPU: makes the next build short

An entry whose bytes are not those of its manifest, or whose manifest is not of the request, is removed.
"""

import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from engine.backends.tensorrt.request import PRECISIONS, BuildRequest, Sizes, Target
from engine.files import cache_folder, replace_file
from engine.parity import LOWEST_DB
from engine.performance import Performance

FORMAT = "livesr-tensorrt-2"
ENGINE, MANIFEST = "engine.plan", "manifest.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRtArtifact:
    """A serialized engine that is what it says. `path` is the file for `tensorrt.Runtime`; the manifest has

    request: what it was built for, `BuildRequest.key()`: sizes, colour, batch and target are there;
    sha256, bytes: of the file;
    config: the network's, as `AwsrnConfig.to_dict()`;  provenance: the checkpoint's;
    layers: how many the engine has;  build_s: how long TensorRT took;
    gpu: where it was built and measured;
    performance: by size ("640x360"), `Performance.to_dict()` as measured there. A plan for one size has it
    for that size, one for several for the smallest, the typical and the largest.
    """

    path: Path
    manifest: dict[str, Any]

    def performance(self, width: int, height: int) -> Performance:
        """At that size, or at the next larger one that was measured."""
        return performance_at(self.manifest, width, height)


class _Unfit(Exception):
    """Why an entry is not used."""


def artifacts_folder() -> Path:
    """Folder that artifacts are kept in unless told otherwise: $LIVESR_ARTIFACTS, else in the user's
    cache."""
    if folder := os.environ.get("LIVESR_ARTIFACTS"):
        return Path(folder)
    return cache_folder() / "artifacts"


def find_artifact(request: BuildRequest, folder: Path) -> TensorRtArtifact | None:
    """The request's artifact if it is there and whole. Another in its place is removed and logged."""
    entry = folder / request.digest
    if not entry.is_dir():
        return None
    try:
        return _verified(entry, request)
    except _Unfit as exc:
        log.warning("the TensorRT engine in %s is not used and will be built again: %s", entry, exc)
        _remove(entry)
        return None


def find_fitting_artifact(request: BuildRequest, folder: Path) -> TensorRtArtifact | None:
    """The request's artifact, or else one for several sizes that takes the request's, rather one that takes
    many at once; a GPU's own before one that runs on any."""
    target = request.target.any_gpu()
    own = _find_for_target(request, folder)
    return own if own or target is None else _find_for_target(replace(request, target=target), folder)


def _find_for_target(request: BuildRequest, folder: Path) -> TensorRtArtifact | None:
    if (artifact := find_artifact(request, folder)) is not None:
        return artifact
    fitting: list[BuildRequest] = []
    for manifest in _manifests(folder):
        sizes, batches = Sizes.parse(manifest["request"]["sizes"]), tuple(manifest["request"]["batches"])
        if sizes.dynamic and sizes.takes(*request.sizes.smallest) and sizes.takes(*request.sizes.largest):
            other = replace(request, sizes=sizes, batches=batches)
            if manifest["request"] == other.key():
                fitting.append(other)
    for other in sorted(fitting, key=lambda other: len(other.batches), reverse=True):
        if (artifact := find_artifact(other, folder)) is not None:
            return artifact
    return None


def faster_int8(request: BuildRequest, folder: Path) -> TensorRtArtifact | None:
    """The FP16 request's artifact in INT8 if somebody has built that, too, on this kind of GPU, and it is
    close enough to the reference and faster at the request's largest size. No stream has anything built in
    INT8."""
    size = request.sizes.largest
    half, int8 = (
        find_fitting_artifact(replace(request, precision=precision), folder) for precision in PRECISIONS
    )
    if request.precision != "fp16" or int8 is None or int8.manifest["gpu"] != request.target.gpu:
        return None
    ours = int8.performance(*size)
    if ours.parity_db < LOWEST_DB["int8"]:
        log.warning("the INT8 engine %s is not used: %.1f dB", int8.path, ours.parity_db)
        return None
    if half is None or ours.surface.fastest_ms < half.performance(*size).surface.fastest_ms:
        return int8
    return None


def save_artifact(
    request: BuildRequest, folder: Path, engine: bytes, facts: Mapping[str, Any]
) -> TensorRtArtifact:
    """Puts an engine in its place at once. `facts`: what the manifest has beyond the request and the hash.
    One that another process put there in the meantime stays, and is returned."""
    manifest = {
        "format": FORMAT,
        "request": request.key(),
        "sha256": hashlib.sha256(engine).hexdigest(),
        "bytes": len(engine),
        **facts,
    }
    entry = folder / request.digest
    with staging(request, folder) as partial:
        (partial / ENGINE).write_bytes(engine)
        _write_manifest(partial, manifest)
        partial.chmod(0o755)  # an image's build stage runs as another user than its service
        try:
            partial.rename(entry)
        except OSError:
            if (found := find_artifact(request, folder)) is not None:
                return found
            partial.rename(entry)  # in the place of the unfit one that `find_artifact` removed
    return TensorRtArtifact(path=entry / ENGINE, manifest=manifest)


def remove_artifact(artifact: TensorRtArtifact) -> None:
    """Removes it, unless another process has put a new one in its place."""
    entry = artifact.path.parent
    try:
        present = json.loads((entry / MANIFEST).read_text())
    except (OSError, ValueError):
        return
    if isinstance(present, dict) and present.get("sha256") == artifact.manifest["sha256"]:
        _remove(entry)


def known_performance(
    folder: Path, *, checkpoint_sha256: str, gpu: str, width: int, height: int
) -> Performance | None:
    """What the folder says of a network on a GPU of that name (`machine.Gpu.name`), before anything is
    loaded; None where no plan for that size was measured there. Of several colours and batches the first."""
    for manifest in _manifests(folder):
        request = manifest["request"]
        found = request["checkpoint_sha256"], manifest["gpu"]
        if found == (checkpoint_sha256, gpu) and Sizes.parse(request["sizes"]).takes(width, height):
            return performance_at(manifest, width, height)
    return None


def performance_at(manifest: Mapping[str, Any], width: int, height: int) -> Performance:
    def pixels(size: str) -> int:
        return math.prod(Sizes.parse(size).typical)

    by_size = manifest["performance"]
    enough = [size for size in by_size if pixels(size) >= width * height]
    return Performance.from_dict(by_size[min(enough or by_size, key=pixels)])


@contextmanager
def staging(request: BuildRequest, folder: Path) -> Iterator[Path]:
    """A new folder beside the artifacts for what is not whole yet."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=_staging_prefix(request), dir=folder))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sweep(request: BuildRequest, folder: Path) -> None:
    """Removes what killed builders of this artifact left behind. Only while none is at work on it."""
    for partial in folder.glob(_staging_prefix(request) + "*"):
        shutil.rmtree(partial, ignore_errors=True)


def read_timing_cache(target: Target, folder: Path) -> bytes:
    """What TensorRT measured on this GPU before; empty where there is nothing, or nothing whole."""
    path = _timing_file(target, folder)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    digest, cache = content[:32], content[32:]
    if hashlib.sha256(cache).digest() != digest:
        log.warning("the timing cache %s is damaged and will be made again", path)
        return b""
    return cache


def add_to_timing_cache(
    target: Target, folder: Path, cache: bytes, merge: Callable[[bytes, bytes], bytes]
) -> None:
    """Keeps what a build measured beside what others have written since it began: `merge` makes one cache of
    the kept one and this."""
    with _locked(folder / f".lock-timing-{target.digest[:16]}"):
        if kept := read_timing_cache(target, folder):
            cache = merge(kept, cache)
        replace_file(_timing_file(target, folder), hashlib.sha256(cache).digest() + cache)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing the file unlocks it
        yield


def _manifests(folder: Path) -> Iterator[dict[str, Any]]:
    """Those of this format that can be read; whether their plans are whole, `find_artifact` says."""
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        try:
            manifest = json.loads(path.read_text())
            Sizes.parse(manifest["request"]["sizes"])
            performance_at(manifest, 0, 0)
            manifest["gpu"], manifest["request"]["checkpoint_sha256"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if manifest.get("format") == FORMAT:
            yield manifest


def _verified(entry: Path, request: BuildRequest) -> TensorRtArtifact:
    try:
        manifest = json.loads((entry / MANIFEST).read_text())
        engine = (entry / ENGINE).read_bytes()
    except (OSError, ValueError) as exc:
        raise _Unfit(str(exc)) from exc
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _Unfit(f"{MANIFEST} is not of format {FORMAT!r}")
    wanted, found = request.key(), manifest.get("request")
    if found != wanted:
        fields = found if isinstance(found, dict) else {}
        other = {name: fields.get(name) for name in wanted if fields.get(name) != wanted[name]}
        raise _Unfit(f"it was built for {other}")
    if hashlib.sha256(engine).hexdigest() != manifest.get("sha256"):
        raise _Unfit(f"the SHA-256 of {ENGINE} is not that of its manifest")
    try:
        performance_at(manifest, 0, 0)
        manifest["gpu"]
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise _Unfit(f"{MANIFEST} does not say what it was measured to do: {exc!r}") from exc
    return TensorRtArtifact(path=entry / ENGINE, manifest=manifest)


def _remove(entry: Path) -> None:
    removed = entry.with_name(f".removed-{uuid4().hex}")
    try:
        entry.rename(removed)
    except FileNotFoundError:
        return  # another process was first
    except OSError as exc:
        log.warning("%s can't be removed: %s", entry, exc)
    shutil.rmtree(removed, ignore_errors=True)


def _write_manifest(entry: Path, manifest: dict[str, Any]) -> None:
    replace_file(entry / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())


def _staging_prefix(request: BuildRequest) -> str:
    return f".building-{request.digest[:16]}-"


def _timing_file(target: Target, folder: Path) -> Path:
    return folder / f"timing-{target.digest[:16]}.bin"
