"""Where a frame's time goes: share of time and of the machine's peak, layer by layer and type by type."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.backends.openvino.peak import measure_peak
from engine.backends.openvino.profile import NodeTime, profile_frame
from engine.errors import BackendUnavailable
from engine.frame import EngineSpec, Precision
from engine.load import artifact_of, choose_cpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """`peaks`: multiply-adds a millisecond that large convolutions reach in each type, in the same run."""

    spec: EngineSpec
    threads: int
    nodes: tuple[NodeTime, ...]
    peaks: Mapping[Precision, float]

    @property
    def total_ms(self) -> float:
        return sum(node.ms for node in self.nodes)

    def share_of_peak(self, nodes: Sequence[NodeTime]) -> float | None:
        """How much less time these would take at the peak of what each computes in; None where none
        multiplies."""
        least_ms = sum(n.macs / self.peaks[n.computes_in] for n in nodes if n.macs and n.computes_in)
        return least_ms / sum(n.ms for n in nodes) if least_ms else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"total_ms": self.total_ms, "share_of_peak": self.share_of_peak(self.nodes)}


def profile_model(
    model: str,
    *,
    width: int,
    height: int,
    precision: Precision | None = None,
    threads: int = 0,
    seconds: float = 5.0,
) -> Profile:
    """On OpenVINO. Names and errors as for `load_engine`."""
    choice = choose_cpu(model, None, precision)
    with artifact_of(choice) as artifact:
        nodes = profile_frame(artifact, width=width, height=height, threads=threads, seconds=seconds)
    types = {node.computes_in for node in nodes if node.macs and node.computes_in}
    if not types:
        raise BackendUnavailable(f"openvino's counters name no convolution of {model} on this machine")
    return Profile(
        spec=choice.spec(width, height),
        threads=threads,
        nodes=tuple(nodes),
        peaks={kind: measure_peak(kind, threads=threads) for kind in sorted(types)},
    )


def describe(profile: Profile) -> str:
    spec = profile.spec
    lines = [
        f"{spec.model} · openvino {spec.precision} · {spec.width}×{spec.height} · "
        f"{profile.total_ms:.2f} ms in the graph",
        f"{'layer':<40} {'type':<12} {'computes':<9} {'ms':>7} {'time':>6} {'peak':>6}",
    ]
    for node in profile.nodes:
        lines.append(_row(profile, node.name, node.kind, node.computes_in, [node]))
    lines += ["", f"{'all of a type':<40}"]
    kinds = defaultdict[tuple[str, Precision | None], list[NodeTime]](list)
    for node in profile.nodes:
        kinds[node.kind, node.computes_in].append(node)
    for (kind, computes_in), nodes in sorted(kinds.items(), key=lambda kv: -sum(n.ms for n in kv[1])):
        lines.append(_row(profile, f"{len(nodes)} layers", kind, computes_in, nodes))
    lines.append(_row(profile, "all", "", None, profile.nodes))
    return "\n".join(lines)


def _row(
    profile: Profile, name: str, kind: str, computes_in: Precision | None, nodes: Sequence[NodeTime]
) -> str:
    ms, peak = sum(node.ms for node in nodes), profile.share_of_peak(nodes)
    share = f"{peak:6.0%}" if peak is not None else f"{'–':>6}"
    return f"{name:<40} {kind:<12} {computes_in or '':<9} {ms:7.2f} {ms / profile.total_ms:6.1%} {share}"
