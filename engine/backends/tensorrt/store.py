"""TensorRT engines on disk: whole or not there, and never run unless they are what was asked for.

    FOLDER/DIGEST/engine.plan       what TensorRT serialized
    FOLDER/DIGEST/manifest.json     what it was built of, for and by
    FOLDER/timing-DIGEST.bin        how fast each kernel was on that GPU: makes the next build short

An entry whose bytes are not those of its manifest, or whose manifest is not of the request, is removed.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from engine.backends.tensorrt.request import BuildRequest, Sizes, Target
from engine.files import replace_file

FORMAT = "livesr-tensorrt-1"
ENGINE, MANIFEST = "engine.plan", "manifest.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRtArtifact:
    """A serialized engine that is what it says. `path` is the file for `tensorrt.Runtime`; the manifest has

    request: what it was built for, `BuildRequest.key()`;  sha256, bytes: of the file;
    tensors: the engine's names of "y_in", "uv_in", "y_out" and "uv_out";
    config: the network's, as `AwsrnConfig.to_dict()`;  provenance: the checkpoint's;
    layers: how many the engine has;  build_s: how long TensorRT took;
    parity_db: as measured on the GPU against the float32 reference, None before.
    """

    path: Path
    manifest: dict[str, Any]


class _Unfit(Exception):
    """Why an entry is not used."""


def artifacts_folder() -> Path:
    """Folder that artifacts are kept in unless told otherwise: $LIVESR_ARTIFACTS, else in the user's
    cache."""
    if folder := os.environ.get("LIVESR_ARTIFACTS"):
        return Path(folder)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "livesr" / "artifacts"


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
    """The request's artifact, or else one for several sizes that takes the request's."""
    if (artifact := find_artifact(request, folder)) is not None:
        return artifact
    for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
        try:
            sizes = Sizes.parse(json.loads(manifest.read_text())["request"]["sizes"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # it may be another request's: `find_artifact` judges it when it is asked for
        if sizes.dynamic and sizes.takes(*request.sizes.smallest) and sizes.takes(*request.sizes.largest):
            other = replace(request, sizes=sizes)
            if (
                manifest.parent.name == other.digest
                and (artifact := find_artifact(other, folder)) is not None
            ):
                return artifact
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
        "parity_db": None,
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


def set_parity(artifact: TensorRtArtifact, parity_db: float) -> TensorRtArtifact:
    """The artifact with what was measured; kept for the next process, where the folder can be written."""
    manifest = artifact.manifest | {"parity_db": round(parity_db, 2)}
    try:
        _write_manifest(artifact.path.parent, manifest)
    except OSError as exc:
        log.warning("the measured parity of %s is not kept: %s", artifact.path, exc)
    return replace(artifact, manifest=manifest)


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


def write_timing_cache(target: Target, folder: Path, cache: bytes) -> None:
    replace_file(_timing_file(target, folder), hashlib.sha256(cache).digest() + cache)


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
