"""A camera or capture card of this machine: `v4l2:/dev/video0?size=1280x720&fps=30&format=mjpeg`."""

import os.path
import re
from dataclasses import dataclass

_OPTIONS = {  # → libav's own name for it, and what a value looks like
    "size": ("video_size", r"[1-9]\d{1,4}x[1-9]\d{1,4}", "1280x720"),
    "fps": ("framerate", r"[1-9]\d{0,2}(/[1-9]\d{0,3})?", "30 or 30000/1001"),
    "format": ("input_format", r"[a-z0-9]{2,16}", "mjpeg, h264 or yuyv422"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class V4l2Device:
    path: str
    asked: str  # the options as they were written
    options: dict[str, str]  # libav's; what is left out the driver chooses


def parse_v4l2(url: str) -> V4l2Device:
    """Raises ValueError that names the option, the value and the rule. Whether there is such a device is not
    asked."""
    path, _, query = url.partition(":")[2].partition("?")
    if not path.startswith("/dev/") or os.path.normpath(path) != path:
        raise ValueError(f"v4l2: {path!r} must be a device such as /dev/video0")
    options = dict[str, str]()
    for pair in filter(None, query.split("&")):
        key, _, value = pair.partition("=")
        if key not in _OPTIONS:
            raise ValueError(f"v4l2: {key!r} must be one of {', '.join(_OPTIONS)}")
        name, looks, example = _OPTIONS[key]
        if not re.fullmatch(looks, value, re.ASCII):
            raise ValueError(f"v4l2 {key}={value!r} must be like {example}")
        options[name] = value
    return V4l2Device(path=path, asked=query, options=options)
