"""Which network: a member of the AWSRN family, one of the paper's ablations of it, or a baseline."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from engine.config import SCALES, AwsrnConfig, ColourKind, paper_config
from training.searched import SEARCHED

BaselineKind = Literal[
    "bicubic", "lanczos", "srcnn", "fsrcnn", "espcn", "vdsr", "drcn", "lapsrn", "drrn", "memnet", "selnet",
    "srdensenet", "srmdnf", "carn", "carn-m", "msrn", "srresnet", "edsr", "mdsr", "rdn", "rcan", "d-dbpn",
]  # fmt: skip
_LUMA = {"srcnn", "fsrcnn", "espcn", "vdsr", "drcn", "lapsrn", "drrn", "memnet", "srdensenet"}
_DOUBLING, _UP_TO_4 = (2, 4, 8), (2, 3, 4)
_SCALES = dict.fromkeys(("lapsrn", "srdensenet", "d-dbpn"), _DOUBLING) | dict.fromkeys(
    ("selnet", "srmdnf", "carn", "carn-m", "mdsr"), _UP_TO_4
)  # all others: any
UnitKind = Literal["basic", "wru", "awru"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineConfig:
    """A system to compare with, as its own paper has it, in luma or in RGB. Bicubic and Lanczos have nothing
    to train."""

    kind: BaselineKind
    scale: int

    def __post_init__(self) -> None:
        if self.kind not in get_args(BaselineKind):
            raise ValueError(f"kind={self.kind!r} must be one of {', '.join(get_args(BaselineKind))}")
        scales = _SCALES.get(self.kind, SCALES)
        if self.scale not in scales:
            raise ValueError(f"scale={self.scale} must be one of {scales} for {self.kind}")

    @property
    def colour(self) -> ColourKind:
        return "y" if self.kind in _LUMA else "rgb"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        return cls(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationConfig:
    """AWSRN with parts replaced or left out (paper, section 4.3, tables 1-4). Without its LRFU an LFB is
    the chain of its units; WDSR is such a chain of 16 Basic RUs."""

    scale: int
    unit: UnitKind
    lrfu: bool
    kernels: tuple[int, ...] = ()  # of AWMS; none is the plain 3×3 reconstruction, which has no α
    lfbs: int = 4
    units: int = 4
    features: int = 32
    block_features: int = 128
    colour: ColourKind = "rgb"

    def __post_init__(self) -> None:
        if self.unit not in get_args(UnitKind):
            raise ValueError(f"unit={self.unit!r} must be one of {', '.join(get_args(UnitKind))}")
        self.relative()

    def relative(self) -> AwsrnConfig:
        """The AWSRN of the same sizes; its rules hold for these as well."""
        return AwsrnConfig(
            scale=self.scale,
            lfbs=self.lfbs,
            awrus=self.units,
            features=self.features,
            block_features=self.block_features,
            kernels=self.kernels or (3,),
            colour=self.colour,
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"kernels": list(self.kernels)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        return cls(**fields | {"kernels": tuple(fields["kernels"])})


NetworkConfig = AwsrnConfig | AblationConfig | BaselineConfig


def config_from_dict(fields: dict[str, Any]) -> NetworkConfig:
    """What `to_dict` of any network's configuration gave. Raises TypeError or KeyError on other fields."""
    if "kind" in fields:
        return BaselineConfig.from_dict(fields)
    if "unit" in fields:
        return AblationConfig.from_dict(fields)
    return AwsrnConfig.from_dict(fields)


_AWMS = (3, 5, 7, 9)
# name: (unit, LRFU, kernels of AWMS), each with 16 units of 32-128-32 channels. AWSRN-B with AWMS is "awsrn".
_ABLATIONS: dict[str, tuple[UnitKind, bool, tuple[int, ...]]] = {
    "wdsr": ("basic", False, ()),
    "wdsr-wru": ("wru", False, ()),
    "wdsr-awru": ("awru", False, ()),
    "wdsr-awms": ("basic", False, _AWMS),
    "awsrn-na": ("basic", True, ()),
    "awsrn-nl": ("awru", False, ()),
    "awsrn-b": ("awru", True, ()),
}
BASELINES = get_args(BaselineKind)
ABLATIONS = tuple(_ABLATIONS)


def named_config(name: str, scale: int) -> NetworkConfig:
    """The network that the papers call `name`: a baseline, an ablation, or a member of the AWSRN family.
    Raises ValueError naming those there are."""
    if name in BASELINES:
        return BaselineConfig.from_dict({"kind": name, "scale": scale})
    if name in _ABLATIONS:
        unit, lrfu, kernels = _ABLATIONS[name]
        return AblationConfig(scale=scale, unit=unit, lrfu=lrfu, kernels=kernels)
    if name in SEARCHED:
        raise ValueError(f"{name} can't be built: its cells were found by a search and are not published")
    try:
        return paper_config(name, scale)
    except ValueError as exc:
        raise ValueError(f"{exc}, or one of {', '.join((*BASELINES, *ABLATIONS))}") from exc
