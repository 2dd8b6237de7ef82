"""`livesr doctor`: what this machine has, and which backend will be used and why."""

import argparse
import importlib.util
import json
from importlib.metadata import version
from typing import Any

import av
from av.video.codeccontext import VideoCodecContext

from engine import machine
from engine.backends.openvino.engine import devices
from engine.backends.require_gpu import GPU_BACKENDS, require_gpu
from engine.errors import EngineError
from engine.load import choose
from engine.measure.gpu_costs import GpuCosts
from engine.shipped import zoo
from server.gateway.placement.slots import usual_slots
from server.settings import PipelineOptions, Settings
from server.srt import libsrt
from server.worker.encode.h264 import encoder_problem
from server.worker.process.nvdec import open_nvdec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    report = examine()
    print(json.dumps(report) if args.json else describe(report))
    return 0


def examine() -> dict[str, Any]:
    """Tries rather than assumes: encoders and decoders are opened."""
    cpu = machine.cpu()
    return {
        "cpu": {"model": cpu.model, "cores": cpu.cores, "features": list(cpu.features)},
        "memory_bytes": machine.memory_bytes(),
        "gpus": [str(gpu) for gpu in machine.nvidia_gpus()],
        "gpu_slots": _gpu_slots(),
        "openvino": {"version": version("openvino"), "devices": devices()},
        "torch": version("torch") if importlib.util.find_spec("torch") else None,
        "ffmpeg": av.ffmpeg_version_info,
        "srt": _libsrt(),
        "codecs": {
            "libx264": _try_encoder("libx264"),
            "h264_nvenc": _try_encoder("h264_nvenc"),
            "nvdec": _try_nvdec(),
        },
        "gpu_backends": {backend: _try_gpu(backend) for backend in GPU_BACKENDS},
        "models": {name: _choice(name) for name in zoo()},
    }


def describe(report: dict[str, Any]) -> str:
    cpu, openvino = report["cpu"], report["openvino"]
    memory = f"{report['memory_bytes'] / 2**30:.1f} GiB"
    rows = [
        (
            "CPU",
            f"{cpu['model']}, {cpu['cores']} cores: {', '.join(cpu['features']) or 'no vector features'}",
        ),
        ("Memory", memory),
        ("GPU", "; ".join(report["gpus"]) or "no NVIDIA GPU"),
        ("OpenVINO", f"{openvino['version']}: {', '.join(openvino['devices'])}"),
        ("PyTorch", report["torch"] or "not installed (checkpoints can't be compiled; artifacts run)"),
        ("FFmpeg", report["ffmpeg"]),
        ("SRT", report["srt"].get("version") or f"does not work: {report['srt']['reason']}"),
    ]
    for gpu, slots in report["gpu_slots"].items():
        how = "as measured" if slots["measured"] else "until its model is measured there"
        rows.append((f"GPU {gpu}", f"room for {slots['streams']} usual streams, {how}"))
    for name, part in (report["codecs"] | report["gpu_backends"]).items():
        rows.append((name, "works" if part["works"] else f"does not work: {part['reason']}"))
    for name, choice in report["models"].items():
        rows.append(
            (name, choice.get("error") or f"{choice['backend']} {choice['precision']}: {choice['why']}")
        )
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def _libsrt() -> dict[str, Any]:
    try:
        return {"works": True, "version": f"libsrt {libsrt.version()}"}
    except libsrt.SrtError as exc:
        return {"works": False, "reason": str(exc)}


def _choice(model: str) -> dict[str, Any]:
    try:
        choice = choose(model, None, None)
    except EngineError as exc:
        return {"error": str(exc)}
    return {"backend": choice.backend, "precision": choice.precision, "why": choice.why}


def _gpu_slots() -> dict[str, dict[str, Any]]:
    """How many streams of the default model and an assumed source each GPU takes where none runs."""
    gpus, settings, costs = machine.nvidia_gpus(), Settings(), GpuCosts()
    model = settings.defaults.model
    return {
        use.gpu.number: {"streams": use.slots, "measured": costs.of(use.gpu.name, model) is not None}
        for use in usual_slots(gpus, settings, costs).usage()
    }


def _try_gpu(backend: str) -> dict[str, Any]:
    try:
        require_gpu(backend)
    except EngineError as exc:
        return {"works": False, "reason": str(exc)}
    return {"works": True}


def _try_encoder(name: str) -> dict[str, Any]:
    reason = encoder_problem(name, PipelineOptions().preset)
    return {"works": False, "reason": reason} if reason else {"works": True}


def _try_nvdec() -> dict[str, Any]:
    software = av.CodecContext.create("h264", "r")
    assert isinstance(software, VideoCodecContext)
    try:
        open_nvdec(software)
    except LookupError as exc:
        return {"works": False, "reason": str(exc)}
    return {"works": True}
