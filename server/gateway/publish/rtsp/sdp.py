"""What an SDP announces (RFC 4566): its tracks, and where each is set up."""

from dataclasses import dataclass

from server.gateway.publish import Malformed

_MOST_TRACKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """`sdp` is for whoever plays it: track n is set up at "track=n". `controls` are the publisher's own."""

    sdp: bytes
    controls: tuple[str, ...]


def parse_sdp(data: bytes) -> Announced:
    """Raises Malformed."""
    lines: list[str] = []
    controls: list[str] = []
    for line in data.decode(errors="replace").splitlines():
        name, value = line[:2], line[2:]
        if name == "m=":
            lines += [line, f"a=control:track={len(controls)}"]
            controls.append("")
        elif name == "a=" and value.lower().startswith("control:"):
            if controls:
                controls[-1] = value[len("control:") :].strip()
        elif name[1:] == "=":
            lines.append(line)
    if not 0 < len(controls) <= _MOST_TRACKS:
        raise Malformed("a description without tracks, or with too many")
    return Announced(sdp="\r\n".join([*lines, ""]).encode(), controls=tuple(controls))
