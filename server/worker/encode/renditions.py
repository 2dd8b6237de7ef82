"""The renditions that are made of one upscaled picture: their sizes, and its picture in a smaller one."""

from collections.abc import Callable, Sequence

import av
from av.video.reformatter import Interpolation, VideoReformatter

from server.wire.messages import SOURCE, UPSCALED, Rendition
from server.worker.process.picture import PictureFormat

Size = tuple[int, int]


def rendition_sizes(names: Sequence[Rendition], upscaled: Size, form: PictureFormat) -> dict[Rendition, Size]:
    """Width and height of those that there are, the largest first. One whose height isn't below the upscaled
    picture's is none."""
    width, height = upscaled
    sizes: dict[Rendition, Size] = {}
    for name in names:
        if name == UPSCALED:
            continue
        if name == SOURCE:
            sizes[name] = form.scaled_size(1)
        elif (lines := int(name.removesuffix("p"))) < height:
            sizes[name] = max(2, round(width * lines / height / 2) * 2), lines
    largest_first = sorted(sizes.items(), key=lambda one: one[1][0] * one[1][1], reverse=True)
    return {UPSCALED: upscaled, **dict(largest_first)}


class ShownFrames:
    """One picture as each rendition shows it. `source` is asked for it only where it is wanted."""

    def __init__(
        self, upscaled: av.VideoFrame, source: Callable[[], av.VideoFrame], scaler: "Scaler"
    ) -> None:
        self.upscaled = upscaled
        self._source = source
        self._scaler = scaler
        self._host: av.VideoFrame | None = None

    def of(self, name: Rendition, size: Size) -> av.VideoFrame:
        if name == UPSCALED:
            return self.upscaled
        if name == SOURCE:
            return self._source()
        if self._host is None:  # what lies in the GPU's memory is brought here once for all smaller ones
            self._host = on_host(self.upscaled)
        return self._scaler.scale(name, self._host, size)


class Scaler:
    """Scales frames of one stream; belongs to one thread."""

    def __init__(self) -> None:
        self._by: dict[Rendition, VideoReformatter] = {}  # each keeps what it has set up for its sizes

    def scale(self, name: Rendition, frame: av.VideoFrame, size: Size) -> av.VideoFrame:
        """A yuv420p frame of that size; `frame` is on the host."""
        reformatter = self._by.setdefault(name, VideoReformatter())
        return reformatter.reformat(
            frame, *size, format="yuv420p", interpolation=Interpolation.AREA, threads=1
        )


def on_host(frame: av.VideoFrame) -> av.VideoFrame:
    """As yuv420p on the host."""
    return frame if frame.format.name == "yuv420p" else frame.reformat(format="yuv420p", threads=1)
