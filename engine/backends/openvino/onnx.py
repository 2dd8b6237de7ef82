"""An ONNX file run by OpenVINO in float32, to see that it draws what it should."""

import openvino as ov

from engine.net import Batch


class OnnxModel:
    def __init__(self, content: bytes) -> None:
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = ov.Core().compile_model(ov.Core().read_model(content), "CPU", options)

    def run(self, x: Batch) -> Batch:
        """(1, C, h, w) → (1, C, s·h, s·w)."""
        out: Batch = self._compiled(x)[0]
        return out
