"""What can be judged, all alike: a shipped or built model, a checkpoint, a baseline, an interpolation."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from engine.config import SCALES, AwsrnConfig
from engine.frame import Colour, Plane, Precision, YuvFrame
from engine.load import choose_net, load_engine, load_net
from engine.net import Net, upscale_image
from training.data.resize import upscale_bicubic
from training.judge.evaluate import Upscaler

INTERPOLATIONS = ("bicubic", "lanczos")
FOREIGN = (".pth", ".pt", ".ckpt")
UpscaleLuma = Callable[[YuvFrame], Plane]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One candidate of a comparison. Parameters and Mult-Adds are counted as the paper does, before folding;
    None for an interpolation."""

    name: str
    engine: str  # what computes, and in which precision
    scale: int
    parameters: int | None
    mult_adds: float | None
    upscale: Upscaler
    # LR width and height, and what the stream's code values mean → each frame's luma as a viewer gets it
    open_video: Callable[[int, int, Colour], UpscaleLuma]


def open_contender(
    model: str, scale: int | None, backend: str | None = None, precision: Precision | None = None
) -> Contender:
    """`model`: an interpolation, a zoo name, an artifact, or a checkpoint of any network, of others as well.
    Backend and precision are AWSRN's; there is but one for all else. Raises EngineError, and ValueError at
    another scale."""
    if model in INTERPOLATIONS:
        if scale is None:
            raise ValueError(f"--scale must be given with --model {model}")
        if scale not in SCALES:
            raise ValueError(f"--scale {scale} must be one of {', '.join(map(str, SCALES))} for {model}")
        return _bicubic(scale) if model == "bicubic" else _lanczos(scale)
    contender = _foreign(model) or _other_network(model) or _awsrn(model, backend, precision)
    if scale not in (None, contender.scale):
        raise ValueError(f"--scale {scale} must be the scale of {model}, {contender.scale}")
    return contender


def _bicubic(scale: int) -> Contender:
    def open_video(width: int, height: int, colour: Colour) -> UpscaleLuma:
        return lambda frame: upscale_bicubic(frame.y, scale)

    return Contender(
        name="bicubic",
        engine="as MATLAB",
        scale=scale,
        parameters=None,
        mult_adds=None,
        upscale=partial(upscale_bicubic, scale=scale),
        open_video=open_video,
    )


def _lanczos(scale: int) -> Contender:
    # torch: artifacts are judged without it.
    from training.judge.torch_upscale import torch_image, torch_video
    from training.networks import BaselineConfig, build_network

    config = BaselineConfig(kind="lanczos", scale=scale)
    network = build_network(config)
    return Contender(
        name="lanczos",
        engine="torch float32",
        scale=scale,
        parameters=None,
        mult_adds=None,
        upscale=torch_image(network, config),
        open_video=partial(torch_video, network, config),
    )


def _foreign(model: str) -> Contender | None:
    """A checkpoint that another program has written."""
    if Path(model).suffix.lower() not in FOREIGN:
        return None
    # torch, spandrel: only these files need them.
    from training.judge.torch_upscale import torch_image, torch_video
    from training.networks.foreign import load_foreign

    foreign = load_foreign(Path(model))
    return Contender(
        name=model,
        engine=f"torch float32, {foreign.architecture}",
        scale=foreign.scale,
        parameters=foreign.parameters,
        mult_adds=foreign.mult_adds,
        upscale=torch_image(foreign.network, foreign),
        open_video=partial(torch_video, foreign.network, foreign),
    )


def _other_network(model: str) -> Contender | None:
    """A checkpoint that is not AWSRN's, which only PyTorch runs."""
    if not Path(model).is_file():
        return None
    # torch: artifacts are judged without it.
    from training.judge.torch_upscale import torch_image, torch_video
    from training.networks import counts, load_network

    loaded = load_network(Path(model))
    if isinstance(loaded.config, AwsrnConfig):
        return None
    size = counts(loaded.config)
    return Contender(
        name=model,
        engine="torch float32",
        scale=loaded.config.scale,
        parameters=size.parameters,
        mult_adds=size.mult_adds,
        upscale=torch_image(loaded.network, loaded.config),
        open_video=partial(torch_video, loaded.network, loaded.config),
    )


def _awsrn(model: str, backend: str | None, precision: Precision | None) -> Contender:
    choice = choose_net(model, backend, precision)

    def open_video(width: int, height: int, colour: Colour) -> UpscaleLuma:
        engine = load_engine(
            model,
            width=width,
            height=height,
            colour=colour,
            backend=choice.backend,
            precision=choice.precision,
        )
        lane = engine.lane()

        def upscale(frame: YuvFrame) -> Plane:
            lane.submit(frame)
            return lane.wait().y.copy()  # the lane's own plane is overwritten by its next frame

        return upscale

    @cache  # only where there are images: compiling takes its time
    def net() -> Net:
        return load_net(model, backend=choice.backend, precision=choice.precision)

    return Contender(
        name=model,
        engine=f"{choice.backend} {choice.precision}",
        scale=choice.config.scale,
        parameters=choice.config.parameters,
        mult_adds=choice.config.mult_adds,
        upscale=lambda rgb: upscale_image(net(), rgb),
        open_video=open_video,
    )
