"""A table of strings as text and as Markdown, and figures as tables have them."""

from collections.abc import Sequence
from dataclasses import dataclass

# What would be markup in a Markdown cell.
_MARKUP = str.maketrans({"|": r"\|", "*": r"\*", "_": r"\_"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The first `names` columns are names, set to the left; all others are figures, set to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int
    note: str = ""

    def text(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        out = []
        for line in lines:
            cells = [
                cell.ljust(width) if index < self.names else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            out.append("  ".join(cells).rstrip())
        return "\n".join([*out, *([self.note] if self.note else [])]) + "\n"

    def markdown(self) -> str:
        rule = ["---" if index < self.names else "---:" for index in range(len(self.header))]
        lines = [_line(self.header), f"| {' | '.join(rule)} |", *map(_line, self.rows)]
        if self.note:
            lines += ["", self.note.translate(_MARKUP)]
        return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.translate(_MARKUP) for cell in cells)} |"


def kilo(parameters: int) -> str:
    """Count as table 5 has it, with a digit more for the small: 348K, 57K, 25.7K."""
    digits = 1 if parameters < 100_000 else 0
    return f"{parameters / 1e3:,.{digits}f}".removesuffix(".0") + "K"


def giga(mult_adds: float) -> str:
    return f"{mult_adds / 1e9:,.1f}G"
