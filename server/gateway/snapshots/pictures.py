"""The latest key frame of each rendition: a picture that can be decoded by itself."""

import asyncio
import time

from server.wire.messages import (
    SOURCE,
    UPSCALED,
    VIDEO_CLOCK_HZ,
    AudioPacket,
    Opened,
    Rendition,
    VideoPacket,
)


class LatestPictures:
    """A `Sink`. The last picture stays when nobody watches any more, and when the stream ends."""

    def __init__(self) -> None:
        self._opened: Opened | None = None
        self._packets: dict[Rendition, VideoPacket] = {}
        self._changed = asyncio.Event()

    def find(self, rendition: Rendition) -> VideoPacket | None:
        """What shows it best: its own key frame, or a later one of the upscaled picture, of which the smaller
        renditions are made."""
        own, upscaled = self._packets.get(rendition), self._packets.get(UPSCALED)
        if own is None or upscaled is None or rendition == SOURCE:
            return own if own is not None or rendition == SOURCE else upscaled
        return upscaled if upscaled.pts > own.pts else own

    def size(self, rendition: Rendition) -> tuple[int, int] | None:
        """Width and height as they are shown, in square pixels; None while nobody knows."""
        forms = self._opened.renditions if self._opened else ()
        form = next((form for form in forms if form.name == rendition), None)
        if self._opened is None or form is None:
            return None
        across, down = self._opened.source.sample_aspect_ratio
        return max(1, round(form.width * across / down)), form.height

    async def changes(self) -> None:
        """Waits for the next key frame of any rendition, or the end."""
        await self._changed.wait()

    def opened(self, opened: Opened) -> None:
        before = {name: self.size(name) for name in self._packets}
        self._opened = opened
        for name, size in before.items():  # of another shape it is of another source
            if self.size(name) != size:
                del self._packets[name]

    def video(self, packet: VideoPacket) -> None:
        if packet.keyframe:
            self._packets[packet.rendition] = packet
            self._tell()

    def audio(self, packet: AudioPacket) -> None:
        pass

    def interrupted(self) -> None:
        pass

    def ended(self) -> None:
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def age_s(packet: VideoPacket) -> float:
    """Seconds since it was to be shown."""
    return max(0.0, time.monotonic() - packet.pts / VIDEO_CLOCK_HZ)
