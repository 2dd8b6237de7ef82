"""The floor under a frame's time on a GPU, from the network's shape and the GPU's published rates.

A frame takes at least as long as its arithmetic at the peak rate, and as moving its bytes at the peak
bandwidth. Nothing here was measured by us on a GPU.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.config import AwsrnConfig, live_config, paper_config

HALF_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """`tflops`: FP16 on tensor cores, dense, 2 operations a multiply-add; `gb_per_s`: memory bandwidth."""

    name: str
    tflops: float
    gb_per_s: float
    source: str


GPUS = (
    Gpu(name="T4", tflops=65, gb_per_s=320, source="NVIDIA T4 datasheet"),
    Gpu(name="L4", tflops=121, gb_per_s=300, source="NVIDIA L4 datasheet, half of its figure with sparsity"),
    Gpu(name="A10", tflops=125, gb_per_s=600, source="NVIDIA A10 datasheet"),
    Gpu(name="L40S", tflops=362, gb_per_s=864, source="NVIDIA L40S datasheet"),
    Gpu(
        name="RTX 4090",
        tflops=330,
        gb_per_s=1008,
        source="NVIDIA Ada whitepaper, FP16 accumulation (165 with FP32)",
    ),
    Gpu(name="H100 SXM", tflops=989, gb_per_s=3350, source="NVIDIA H100 datasheet, half with sparsity"),
)

# LR width and height; ×2 of them is what the page's title row says.
SIZES = ((640, 360), (960, 540), (1280, 720), (1920, 1080))


def models() -> dict[str, AwsrnConfig]:
    """The variants that are worth a column: what ships for live video, and the paper's, whole and pruned."""
    sd = paper_config("awsrn-sd", 2)
    return {
        "live ×2 (n16 b32, 2 AWRU)": live_config(),
        "live-large ×2 (n16 b64, 5 AWRU)": live_config(block_features=64, awrus=5),
        "AWSRN-SD ×2, AWMS 3+5": replace(sd, kernels=(3, 5)),
        "AWSRN-SD ×2": sd,
        "AWSRN-S ×2": paper_config("awsrn-s", 2),
        "AWSRN-M ×2": paper_config("awsrn-m", 2),
        "AWSRN ×2": paper_config("awsrn", 2),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCost:
    """What one frame takes. `plane_bytes`: uint8 planes in and out, which nothing can avoid; `layer_bytes`:
    those and every convolution's input and output once each in FP16, as where none are fused."""

    multiply_adds: float
    plane_bytes: float
    layer_bytes: float

    def floor_ms(self, gpu: Gpu) -> tuple[float, float, float]:
        """Milliseconds of the arithmetic, of the planes' bytes, of the layers' bytes."""
        bandwidth = gpu.gb_per_s * 1e9
        return (
            1e3 * 2 * self.multiply_adds / (gpu.tflops * 1e12),
            1e3 * self.plane_bytes / bandwidth,
            1e3 * self.layer_bytes / bandwidth,
        )


def folded_convs(config: AwsrnConfig) -> Iterator[tuple[int, int, int]]:
    """The network's convolutions once folded, as (input channels, output channels, kernel), the global skip
    last: those of the AWMS are one, of its largest kernel."""
    *convs, skip = config.convs()
    yield from convs[: -len(config.kernels)]
    yield convs[-1]
    yield skip


def frame_cost(config: AwsrnConfig, width: int, height: int) -> FrameCost:
    """Cost of an LR frame of width × height. Chroma of a `y` model and colour of an `rgb` one are left out of
    the arithmetic, of which they are a few percent, but not of the planes."""
    pixels = width * height
    planes = 1.5 * pixels * (1 + config.scale**2)
    *on_grid, skip = (i + o for i, o, _ in folded_convs(config))
    values = (sum(on_grid) / config.grid**2 + skip) * pixels
    return FrameCost(
        multiply_adds=config.folded_macs_per_lr_pixel * pixels,
        plane_bytes=planes,
        layer_bytes=planes + HALF_BYTES * values,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A figure of somebody else's engine; `macs_per_lr_pixel` follows from its published architecture, and is
    None where that is not public."""

    name: str
    gpu: str
    lr_size: tuple[int, int]
    ms: float
    macs_per_lr_pixel: int | None

    def share_of_peak(self) -> float | None:
        """Share of the GPU's FP16 rate; None without an architecture, or for a GPU that is not in the
        table."""
        gpu = next((g for g in GPUS if g.name == self.gpu), None)
        if gpu is None or self.macs_per_lr_pixel is None:
            return None
        width, height = self.lr_size
        return 2 * self.macs_per_lr_pixel * width * height / (self.ms / 1e3) / (gpu.tflops * 1e12)


def _compact() -> int:
    """SRVGGNetCompact ×2: 64 features, 16 convolutions between the first and the last."""
    return 9 * (3 * 64 + 16 * 64 * 64 + 64 * 12)


def _span() -> int:
    """SPAN ×2 (arXiv 2311.12770), re-parameterised: 48 features, six blocks of three convolutions, one behind
    them, a 1×1 fusion of four maps, the reconstruction."""
    return 9 * (3 * 48 + 19 * 48 * 48 + 48 * 12) + 4 * 48 * 48


def _published(name: str, gpu: str, height: int, ms: float, macs: int | None = None) -> Published:
    size = (height * 16 // 9, height)
    return Published(name=name, gpu=gpu, lr_size=size, ms=ms, macs_per_lr_pixel=macs)


PUBLISHED = (
    _published("Compact ×2, TensorRT", "RTX 4090", 720, 1e3 / 140, _compact()),
    _published("Compact ×2, TensorRT", "RTX 4090", 1080, 1e3 / 61.5, _compact()),
    _published("SPAN ×2, decoding included", "RTX 4090", 720, 1e3 / 112, _span()),
    _published("SPAN ×2, decoding included", "RTX 4090", 1080, 1e3 / 51, _span()),
    _published("NVIDIA Maxine SR ×2", "T4", 360, 3.11),
    _published("NVIDIA Maxine SR ×2", "A40", 360, 1.14),
    _published("NVIDIA Maxine SR ×2", "L40", 360, 0.55),
    _published("Bicubic++ ×3", "RTX 3090", 720, 1.17),
)


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([*_head(), *_costs(), *_floors(), *_others()]) + "\n"


def _head() -> list[str]:
    return [
        "# How fast a GPU can be at most",
        "",
        "Written by `livesr roofline`; a test holds this page to what the command prints. **No figure on it",
        "was measured on a GPU by us**: it is arithmetic over the networks' shapes and published rates.",
        "",
        "A frame takes at least as long as each of these:",
        "",
        "- **arithmetic**: the folded network's multiply-adds, two operations each, at the GPU's dense FP16",
        "  rate;",
        "- **planes**: the uint8 4:2:0 planes in and out, at its memory bandwidth. Nothing can go below it;",
        "- **layers**: besides the planes, every convolution's input and output once each in FP16, as where",
        "  none are fused. A GPU's second-level cache, or fusion, can go below it.",
        "",
        "With 16 channels (the live networks and SD) the layers' bytes bound the frame on every GPU here,",
        "not the arithmetic; with the 32 of the others they do on GPUs that are short of bandwidth. Fusing a",
        "unit's two convolutions would gain more than fewer multiply-adds.",
        "",
    ]


def _costs() -> list[str]:
    titles = " | ".join(f"{h}p→{2 * h}p" for _, h in SIZES)
    lines = ["## What a frame takes", "", "Billions of multiply-adds / MB of layers.", ""]
    lines += [f"| | MAC/LR pixel | {titles} |", "|---|---|" + "---|" * len(SIZES)]
    for name, config in models().items():
        cells = []
        for width, height in SIZES:
            cost = frame_cost(config, width, height)
            cells.append(f"{cost.multiply_adds / 1e9:.1f} / {cost.layer_bytes / 1e6:.0f}")
        lines.append(f"| {name} | {config.folded_macs_per_lr_pixel:,} | {' | '.join(cells)} |")
    planes = " · ".join(f"{h}p {frame_cost(live_config(), w, h).plane_bytes / 1e6:.1f} MB" for w, h in SIZES)
    return [*lines, "", f"Planes in and out: {planes}.", ""]


def _floors() -> list[str]:
    lines = ["## The floor, in ms a frame", "", "Arithmetic / layers; what bounds is bold.", ""]
    for width, height in SIZES:
        lines += [f"### {height}p→{2 * height}p", ""]
        lines += ["| | " + " | ".join(gpu.name for gpu in GPUS) + " |", "|---|" + "---|" * len(GPUS)]
        for name, config in models().items():
            cost = frame_cost(config, width, height)
            cells = []
            for gpu in GPUS:
                arithmetic, _, layers = cost.floor_ms(gpu)
                a, b = f"{arithmetic:.2f}", f"{layers:.2f}"
                cells.append(f"**{a}** / {b}" if arithmetic > layers else f"{a} / **{b}**")
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    lines += ["| GPU | TFLOPS | GB/s | source |", "|---|---|---|---|"]
    lines += [f"| {g.name} | {g.tflops:g} | {g.gb_per_s:g} | {g.source} |" for g in GPUS]
    return [*lines, ""]


def _others() -> list[str]:
    lines = [
        "## What comparable engines reach",
        "",
        "Figures published by others; the share is of the FP16 rate above, by the architecture's",
        "multiply-adds.",
        "",
        "| Engine | GPU | LR | ms | share of peak |",
        "|---|---|---|---|---|",
    ]
    for p in PUBLISHED:
        share = p.share_of_peak()
        text = f"{share:.0%}" if share is not None else "–"
        lines.append(f"| {p.name} | {p.gpu} | {p.lr_size[0]}×{p.lr_size[1]} | {p.ms:.2f} | {text} |")
    return [
        *lines,
        "",
        "Those with 48 to 64 channels reach a quarter to a half of the arithmetic's peak. Ours are narrower:",
        "expect less of it, and compare with the layers' floor instead.",
    ]
