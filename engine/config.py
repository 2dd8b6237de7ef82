"""The network's shape: which AWSRN this is, and what it costs. Free of torch, so that serving can read it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

ColourKind = Literal["rgb", "y"]
SCALES = (2, 3, 4, 8)

# Mean of DIV2K on the 0-1 scale, as the authors' released code subtracts it.
RGB_MEAN = (0.4488, 0.4371, 0.4040)
# The same colour as BT.601 limited-range luma.
Y_MEAN = (0.4379,)


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsrnConfig:
    """One member of the AWSRN family (arXiv 1904.02358, sections 3 and 4.4)."""

    scale: int
    lfbs: int
    awrus: int
    features: int
    block_features: int
    kernels: tuple[int, ...] = (3, 5, 7, 9)
    colour: ColourKind = "rgb"
    grid: int = 1  # our own: features have one position for grid × grid LR pixels
    context: int = 0  # our own: hidden channels of what tells whether a picture is compressed; 0: none

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale={self.scale} must be one of {', '.join(map(str, SCALES))}")
        for name in ("lfbs", "awrus", "features", "block_features"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.kernels or any(k < 1 or k % 2 == 0 for k in self.kernels):
            raise ValueError(f"kernels={self.kernels} must be odd sizes, at least one")
        if list(self.kernels) != sorted(set(self.kernels)):
            raise ValueError(f"kernels={self.kernels} must rise without repeats")
        if self.colour not in ("rgb", "y"):
            raise ValueError(f"colour={self.colour!r} must be 'rgb' or 'y'")
        if self.grid not in (1, 2):
            raise ValueError(f"grid={self.grid} must be 1 or 2")
        if self.context < 0:
            raise ValueError(f"context={self.context} must be zero or more")

    @property
    def channels(self) -> int:
        return 3 if self.colour == "rgb" else 1

    @property
    def mean(self) -> tuple[float, ...]:
        return RGB_MEAN if self.colour == "rgb" else Y_MEAN

    def convs(self) -> Iterator[tuple[int, int, int]]:
        """Every convolution of the network, as (input channels, output channels, kernel): the global skip,
        which is the only one on the grid of LR pixels whatever `grid`, comes last."""
        n, b, out = self.features, self.block_features, self.channels * self.scale**2
        yield self.channels * self.grid**2, n, 3
        for _ in range(self.lfbs):
            for _ in range(self.awrus):
                yield n, b, 3
                yield b, n, 3
            yield self.awrus * n, n, 3
        for k in self.kernels:
            yield n, out * self.grid**2, k
        yield self.channels, out, 3

    def context_convs(self) -> Iterator[tuple[int, int, int, int]]:
        """Those of the context, as (input channels, output channels, kernel, stride). All but the first have
        one position, the picture's."""
        if self.context:
            yield self.channels, 64, 8, 16
            yield 64, self.context, 1, 1
            yield self.context, 1, 1, 1

    @property
    def parameters(self) -> int:
        """Trainable parameters as the paper counts them: weight norm's v and g, biases and scalars."""
        convs = sum(i * o * k * k + 2 * o for i, o, k in self.convs())
        convs += sum(i * o * k * k + o for i, o, k, _ in self.context_convs())
        lambdas = 2 * self.lfbs * (self.awrus + 1)
        shift = self.features if self.context else 0
        return convs + lambdas + len(self.kernels) + shift

    @property
    def macs_per_lr_pixel(self) -> int:
        """Multiply-adds for each LR pixel, before any folding."""
        *on_grid, skip = (i * o * k * k for i, o, k in self.convs())
        context = sum(i * o * k * k // step**2 for i, o, k, step in self.context_convs() if step > 1)
        return sum(on_grid) // self.grid**2 + skip + context

    @property
    def folded_macs_per_lr_pixel(self) -> int:
        """Multiply-adds for each LR pixel once the AWMS branches are one convolution."""
        out = self.channels * self.scale**2
        branches = sum(k * k for k in self.kernels)
        return self.macs_per_lr_pixel - self.features * out * (branches - max(self.kernels) ** 2)

    @property
    def reach(self) -> int | None:
        """How far from a pixel the LR pixels lie that it depends on: along the most convolutions. None where
        it depends on the whole picture."""
        if self.context:
            return None
        positions = 1 + self.lfbs * (2 * self.awrus + 1) + max(self.kernels) // 2
        return self.grid * (positions + 1) - 1

    @property
    def mult_adds(self) -> float:
        """The paper's Mult-Adds: for a 1280×720 output, LR pixels not rounded."""
        return self.macs_per_lr_pixel * 1280 * 720 / self.scale**2

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"kernels": list(self.kernels)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        return cls(**fields | {"kernels": tuple(fields["kernels"])})


# {LFBs; AWRUs per LFB; n, b}: paper section 4.4, and our own for live video.
_FAMILY = {
    "awsrn-s": (1, 4, 32, 128),
    "awsrn-sd": (1, 8, 16, 128),
    "awsrn-m": (3, 4, 32, 128),
    "awsrn": (4, 4, 32, 128),
}


def paper_config(variant: str, scale: int) -> AwsrnConfig:
    """The paper's own network: variant is 'awsrn-s', 'awsrn-sd', 'awsrn-m' or 'awsrn'."""
    if variant not in _FAMILY:
        raise ValueError(f"variant={variant!r} must be one of {', '.join(_FAMILY)}")
    lfbs, awrus, n, b = _FAMILY[variant]
    return AwsrnConfig(scale=scale, lfbs=lfbs, awrus=awrus, features=n, block_features=b)


def live_config(
    *,
    scale: int = 2,
    features: int = 16,
    block_features: int = 32,
    awrus: int = 2,
    grid: int = 1,
    context: int = 0,
) -> AwsrnConfig:
    """A small luma network for live video, its AWMS already pruned to the 3×3 and 5×5 branches."""
    return AwsrnConfig(
        scale=scale,
        lfbs=1,
        awrus=awrus,
        features=features,
        block_features=block_features,
        kernels=(3, 5),
        colour="y",
        grid=grid,
        context=context,
    )
