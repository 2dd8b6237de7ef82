"""A network as ONNX for other programs, above all VapourSynth's vs-mlrt, and mpv through it.

One plane or one RGB picture in, (1, C, h, w) float32 of any size, and the same at s times the size out, on
the scale that such filters hand over: 0 to 1. For RGB these are the code values 0 and 255. For luma they are
black and white of limited range, 16 and 235, as VapourSynth's GRAYS and YUV444PS have them: chroma is left to
the player, which enlarges it anyway. Nothing is clamped; what is below black stays so until a format cuts it
off.
"""

import importlib.util
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from engine.backends.openvino.onnx import OnnxModel
from engine.errors import BuildFailed
from engine.files import replace_file
from engine.net import Batch
from engine.network.checkpoint import Checkpoint
from engine.network.fold import fold

OPSET = 18
# Of 0 to 1: a tenth of a code value, many times what the order of float32 additions makes.
MAX_DIFFERENCE = 0.1 / 255
# Neither is a multiple of anything that a graph could have been frozen to.
_SIZES = ((37, 50), (64, 23))


class UnitNet(nn.Module):
    """The folded network on 0-1."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.net = fold(checkpoint.network())
        self.black, self.range = (0.0, 255.0) if checkpoint.config.colour == "rgb" else (16.0, 219.0)

    def forward(self, x: Tensor) -> Tensor:
        sr: Tensor = self.net(x * self.range + self.black)
        return (sr - self.black) / self.range


def export_onnx(checkpoint: Checkpoint, path: Path) -> dict[str, float]:
    """Writes the file once it has drawn what PyTorch draws, by OpenVINO, and by ONNX Runtime where that is
    installed. Returns the largest difference in each, on 0 to 1. Raises BuildFailed where one is above a
    tenth of a code value, and ModuleNotFoundError without onnx and onnxscript."""
    network = UnitNet(checkpoint).eval()
    channels = checkpoint.config.channels
    example = torch.zeros(1, channels, 32, 48)
    sizes = {2: Dim("height", min=8, max=8192), 3: Dim("width", min=8, max=8192)}
    # The exporter speaks of itself, and of torchvision, which nothing here needs.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes={"x": sizes},
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")  # the lines of code it came from, by this machine's paths
    for key, value in (
        ("model", path.stem),
        ("scale", str(checkpoint.config.scale)),
        ("colour", checkpoint.config.colour),
        ("checkpoint_sha256", checkpoint.sha256),
    ):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    content: bytes = model.SerializeToString()
    differences = _differences(network, content, channels)
    for runtime, difference in differences.items():
        if not difference <= MAX_DIFFERENCE:
            raise BuildFailed(
                f"{path} by {runtime} differs from PyTorch by {difference:.2g},"
                f" must be {MAX_DIFFERENCE:.2g} at most"
            )
    replace_file(path, content)
    return differences


def _differences(network: nn.Module, content: bytes, channels: int) -> dict[str, float]:
    runs: dict[str, Callable[[Batch], Batch]] = {"openvino": OnnxModel(content).run}
    if importlib.util.find_spec("onnxruntime") is not None:
        runs["onnxruntime"] = _onnxruntime(content)
    generator = np.random.default_rng(0)
    most = dict.fromkeys(runs, 0.0)
    for size in _SIZES:
        x = generator.random((1, channels, *size), dtype=np.float32)
        with torch.inference_mode():
            wanted = network(torch.from_numpy(x)).numpy()
        for runtime, run in runs.items():
            drawn = run(x)
            assert drawn.shape == wanted.shape
            most[runtime] = max(most[runtime], float(np.abs(drawn - wanted).max()))
    return most


def _onnxruntime(content: bytes) -> Callable[[Batch], Batch]:
    import onnxruntime  # optional: of the extra `onnx`

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(x: Batch) -> Batch:
        out: Batch = session.run(None, {"input": x})[0]
        return out

    return run
