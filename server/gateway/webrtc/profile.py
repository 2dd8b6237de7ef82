"""H.264 profiles and levels as an offer and an answer name them (RFC 6184, section 8.1)."""

from dataclasses import dataclass
from typing import Literal

Profile = Literal["constrained baseline", "baseline", "main", "constrained high", "high", "other"]

# What a decoder of a profile plays, itself first.
_PLAYS: dict[Profile, tuple[Profile, ...]] = {
    "constrained baseline": ("constrained baseline",),
    "baseline": ("baseline", "constrained baseline"),
    "main": ("main", "constrained baseline"),
    "constrained high": ("constrained high", "constrained baseline"),
    "high": ("high", "constrained high", "main", "constrained baseline"),
    "other": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileLevel:
    """The three bytes that a sequence parameter set begins with, and `profile-level-id` writes in hex."""

    idc: int
    constraints: int
    level: int

    @classmethod
    def parse(cls, text: str) -> "ProfileLevel":
        """Raises ValueError."""
        idc, constraints, level = bytes.fromhex(text)
        return cls(idc=idc, constraints=constraints, level=level)

    @classmethod
    def of(cls, annex_b: bytes) -> "ProfileLevel | None":
        """What the access unit's own parameter set says, where it has one."""
        start = annex_b.find(b"\0\0\1")
        while start >= 0:
            unit = annex_b[start + 3 : start + 7]
            if len(unit) == 4 and unit[0] & 0x1F == 7:
                return cls(idc=unit[1], constraints=unit[2], level=unit[3])
            start = annex_b.find(b"\0\0\1", start + 3)
        return None

    def __str__(self) -> str:
        return bytes([self.idc, self.constraints, self.level]).hex()

    @property
    def profile(self) -> Profile:
        """RFC 6184, table 5."""
        bits = self.constraints
        match self.idc:
            case 0x42:
                return "constrained baseline" if bits & 0x40 else "baseline"
            case 0x4D:
                return "constrained baseline" if bits & 0x80 else "main"
            case 0x64:
                return "constrained high" if bits & 0x0C == 0x0C else "high"
            case _:
                return "other"

    def distance(self, sent: "ProfileLevel") -> int | None:
        """How much more than what is sent a decoder of this profile could play; None where not even that."""
        plays = _PLAYS[self.profile]
        return plays.index(sent.profile) if sent.profile in plays else None
