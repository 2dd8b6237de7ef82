"""PyTorch modules written as OpenVINO IR: a small translator of the operators that our graphs consist of.

OpenVINO's own converter would do too, but it reports usage to its maker, hides the names that the
quantiser needs, and makes a dozen reshapes of a pixel shuffle.
"""

import operator
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openvino as ov
import torch
from openvino import opset1
from openvino import opset13 as opset
from torch import Tensor, fx, nn
from torch.nn.functional import pad

from engine.network.pack import PackedAwsrn
from engine.network.packed_conv import PackedConv
from engine.network.packed_frame import PackedFrameNet

_TYPES = {torch.float32: ov.Type.f32, torch.uint8: ov.Type.u8}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return isinstance(module, (PackedAwsrn, nn.Conv2d, nn.ReLU, nn.PixelShuffle))


def export_net(net: PackedAwsrn, path: Path) -> None:
    """Writes the bare network: "lr" float32 (batch, C, h, w) → "sr", packed. The path that goes round the
    network (mean shift, skip and the last addition) stays float32 in every precision, as does what the
    context sees."""
    module = _trace(net)
    channels = net.config.channels
    lr = _parameter("lr", (-1, channels, -1, -1), ov.Type.f32)
    (sr,) = _translate(module, [lr])
    names = {node.name for node in module.graph.nodes}
    assert {"sub", "skip"} <= names
    last_addition = max((n for n in names if n.startswith("add")), key=lambda n: int(n[4:] or 0))
    context = {n for n in names if n.startswith(("context", "pad"))}
    _write(ov.Model([_result("sr", sr)], [lr], "net"), path, {"sub", "skip", last_addition} | context)


def export_frame(frame: PackedFrameNet, path: Path) -> None:
    """Writes a frame graph with a gap where the network goes: inputs "y_in", "uv_in" and "net_out", outputs
    "y_out", "uv_out" and "net_in". All of it stays float32 in every precision."""
    module = _trace(frame)
    channels = frame.net.config.channels * frame.net.block**2
    y = _parameter("y_in", (1, 1, -1, -1), ov.Type.u8)
    uv = _parameter("uv_in", (1, 2, -1, -1), ov.Type.u8)
    net_out = _parameter("net_out", (1, channels, -1, -1), ov.Type.f32)
    net_in: list[Any] = []

    def gap(value: Any) -> Any:
        net_in.append(value)
        return net_out

    y_out, uv_out = _translate(module, [y, uv], gap)
    results = [_result("y_out", y_out), _result("uv_out", uv_out), _result("net_in", net_in[0])]
    everything = {node.name for node in module.graph.nodes}
    _write(ov.Model(results, [y, uv, net_out], "frame"), path, everything)


def _trace(module: nn.Module) -> fx.GraphModule:
    return fx.GraphModule(module, _Tracer().trace(module))


def _parameter(name: str, shape: tuple[int, ...], dtype: ov.Type) -> Any:
    node = opset.parameter(list(shape), dtype, name=name)
    node.output(0).get_tensor().set_names({name})
    return node


def _result(name: str, value: Any) -> Any:
    node = opset.result(value, name=name)
    node.output(0).get_tensor().set_names({name})
    return node


def _translate(
    module: fx.GraphModule, inputs: list[Any], gap: Callable[[Any], Any] | None = None
) -> tuple[Any, ...]:
    """The outputs of the traced module as OpenVINO nodes, each named as in the trace."""
    modules = dict(module.named_modules())
    values: dict[fx.Node, Any] = {}

    def get(argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return values[argument]
        if isinstance(argument, (list, tuple)):
            return [get(a) for a in argument]
        return argument

    waiting = iter(inputs)
    for node in module.graph.nodes:
        args = [get(a) for a in node.args]
        match node.op:
            case "placeholder":
                values[node] = next(waiting)
                continue
            case "output":
                out = args[0]
                return tuple(out) if isinstance(out, list) else (out,)
            case "get_attr":
                value = opset.constant(_array(operator.attrgetter(node.target)(module)))
            case "call_module" if isinstance(modules[node.target], PackedAwsrn):
                assert gap is not None
                values[node] = gap(args[0])
                continue
            case "call_module":
                value = _translate_module(modules[node.target], args[0], node.name)
            case _:
                value = _translate_call(node.target, args, dict(node.kwargs))
        value.set_friendly_name(node.name)
        values[node] = value
    raise AssertionError("a traced module ends in an output")


def _translate_module(module: nn.Module, x: Any, name: str) -> Any:
    match module:
        case nn.Conv2d():
            assert isinstance(module.padding, tuple)
            assert module.groups == 1
            before = after = list(module.padding)
            if isinstance(module, PackedConv):
                before, after = [module.before] * 2, [module.after] * 2
            weight = opset.constant(_array(module.weight))
            y = opset.convolution(x, weight, list(module.stride), before, after, [1, 1])
            if module.bias is None:
                return y
            y.set_friendly_name(f"{name}/conv")
            return opset.add(y, opset.constant(_array(module.bias.view(1, -1, 1, 1))))
        case nn.ReLU():
            return opset.relu(x)
        case nn.PixelShuffle():
            return opset.depth_to_space(x, "depth_first", module.upscale_factor)
    raise TypeError(f"no OpenVINO form of {type(module).__name__}")


def _translate_call(target: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    match target:
        case operator.add:
            x, added = args
            return opset.add(x, opset.constant(np.float32(added)) if isinstance(added, float) else added)
        case operator.sub:
            return opset.subtract(*args)
        case operator.mul:
            return opset.multiply(args[0], opset.constant(torch.tensor(args[1]).numpy()))
        case operator.getitem:  # x[:, start:stop]
            _, channels = args[1]
            bounds = [
                opset.constant([bound]) for bound in (channels.start or 0, channels.stop or 2**31 - 1, 1)
            ]
            return opset.slice(args[0], *bounds, axes=opset.constant([1]))
        case torch.sigmoid:
            return opset.sigmoid(args[0])
        case torch.relu:
            return opset.relu(args[0])
        case torch.cat:
            return opset.concat(args[0], kwargs["dim"])
        case "mean":
            return opset.reduce_mean(args[0], opset.constant(args[1]), kwargs["keepdim"])
        case "abs":
            return opset.abs(args[0])
        case torch.log:
            return opset.log(args[0])
        case "clamp":
            return opset.clamp(args[0], args[1], args[2])
        case "permute":
            return opset.transpose(args[0], opset.constant(args[1:]))
        case "round":
            return opset.round(args[0], "half_to_even")
        case "to":
            return opset.convert(args[0], _TYPES[args[1]])
        case _ if target is pad and kwargs["mode"] == "replicate":
            left, right, top, bottom = args[1]
            begin, end = opset.constant([0, 0, top, left]), opset.constant([0, 0, bottom, right])
            return opset1.pad(args[0], begin, end, "edge")  # a later one loses the mark of `_write`
    raise TypeError(f"no OpenVINO form of {target}")


def _array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()


def _write(model: ov.Model, path: Path, precise: Collection[str]) -> None:
    ov.save_model(model, path, compress_to_fp16=False)
    # The mark by which OpenVINO keeps a node in float32 under a BF16 hint can only be set in the file.
    tree = ElementTree.parse(path)  # noqa: S314 - written by the line above
    for layer in tree.iter("layer"):
        name = layer.get("name", "")
        if name.removesuffix("/conv") in precise:
            info = ElementTree.Element("rt_info")
            ElementTree.SubElement(info, "attribute", name="precise", version="0")
            data = layer.find("data")
            layer.insert(0 if data is None else 1, info)
    tree.write(path, encoding="utf-8", xml_declaration=True)
