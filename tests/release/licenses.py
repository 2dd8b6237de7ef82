"""`make licenses`: docs/licenses.md, by what the installed packages say of themselves."""

import re
from importlib import metadata

from tests.release.dependencies import needed

# Terms under which Apache-2.0 software may need and ship a package. MPL-2.0 binds changes to its own files.
ALLOWED = frozenset(
    {
        "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC",
        "LLVM-exception", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Python-2.0", "Zlib",
    }
)  # fmt: skip
_ANY = "allowed"  # stands for what was in brackets
# As packages without an SPDX expression have it.
_NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}
_HEAD = """# Licences of what livesr needs

livesr itself is Apache-2.0. This is what `pip install livesr` brings along, and its extra `train`, by what
the packages say of themselves; `make licenses` writes this page, and a test holds it and refuses terms that
it doesn't know.

What packages bring inside says more than their own licence: the wheel of `av` (BSD-3-Clause) ships FFmpeg
with x264 and x265, which are GPL-2.0-or-later. Whoever passes that wheel on, in an image too, passes on GPL
software and owes its source code; FFmpeg's and the encoders' own terms hold, and H.264, HEVC and AAC may be
patented where you are. The extra `gpu` brings NVIDIA's TensorRT and CUDA libraries, under NVIDIA's own
terms; it is not listed here.

| Package | Licence | Needed by |
|---|---|---|
"""


def license_of(name: str) -> str:
    """An SPDX expression, as near as the package says."""
    about = metadata.metadata(name)
    if expression := about.get("License-Expression"):
        return expression
    classified = [
        line.split(" :: ")[-1] for line in about.get_all("Classifier") or () if line.startswith("License")
    ]
    said = [_NAMES.get(text, text) for text in classified]
    text = (about.get("License") or "").strip()
    if not said and text and "\n" not in text:
        said = [_NAMES.get(text, text)]
    return " AND ".join(said) or "unknown"


def refused(expression: str) -> list[str]:
    """Terms in the expression that are not allowed; of alternatives one allowed one is enough."""
    while group := re.search(r"\(([^()]*)\)", expression):  # the innermost first
        terms = " AND ".join(refused(group[1])) or _ANY
        expression = expression[: group.start()] + terms + expression[group.end() :]
    alternatives = [
        [term for term in re.split(r"\s+(?:AND|WITH)\s+", part.strip()) if term not in ALLOWED | {_ANY}]
        for part in re.split(r"\s+OR\s+", expression)
    ]
    return min(alternatives, key=len)


def page() -> str:
    serving = needed()
    rows = [
        f"| {name} | {license_of(name)} | {'livesr' if name in serving else 'train'} |"
        for name in sorted(serving | needed("train"))
    ]
    return _HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(page(), end="")
