"""The picture of a stream, made once for all who ask."""

import asyncio
import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from server.gateway.errors import NotReady, TooManyRequests
from server.gateway.snapshots.jpeg import to_jpeg
from server.gateway.snapshots.pictures import LatestPictures, age_s
from server.wire.messages import SOURCE, UPSCALED, Rendition, VideoPacket

_SHARED_S = 1.0  # a picture that is no older is not made anew
_WAITS_S = 5.0  # for the picture of a stream that has to wake
_MOST_KEPT = 8  # renditions and sizes
_MOST_MADE, _WITHIN_S = 10, 1.0  # of all sizes: each is a picture decoded
MOST_ACROSS = 8192  # a source may say that its pixels are a thousand times as wide as they are high


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """`age_s`: of the picture, as it was asked for."""

    jpeg: bytes = field(repr=False)
    etag: str
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    packet: VideoPacket
    made_s: float
    jpeg: bytes
    etag: str


class Snapshots:
    """Of one stream."""

    def __init__(
        self, pictures: LatestPictures, *, glance: Callable[[Rendition], AbstractContextManager[None]]
    ) -> None:
        """`glance` has the rendition made for as long as its block lasts."""
        self._pictures = pictures
        self._glance = glance
        self._made: OrderedDict[tuple[Rendition, int | None], _Made] = OrderedDict()
        self._times_s: deque[float] = deque(maxlen=_MOST_MADE)  # when pictures were made
        self._making = asyncio.Lock()  # one after the other: who waits finds it made

    async def take(
        self, rendition: Rendition, *, width: int | None, max_age_s: float, awaited: Callable[[], bool]
    ) -> Snapshot:
        """A picture as wide as that, but never wider than it is. One older than `max_age_s` is asked for anew
        while it is `awaited`; where none comes, it is the last. Raises NotReady where there is none, and
        TooManyRequests where more sizes are asked for than are made in a second."""
        packet = self._pictures.find(rendition)
        if (packet is None or age_s(packet) > max_age_s) and awaited():
            packet = await self._newer(rendition, packet, awaited)
        size = self._pictures.size(rendition)
        if packet is None or size is None:
            raise NotReady(f"no picture of rendition {rendition!r} has come yet")
        async with self._making:
            made = self._made.get((rendition, width))
            if made is None or not (made.packet is packet or time.monotonic() - made.made_s < _SHARED_S):
                made = await self._make(packet, size, width)
                self._made[rendition, width] = made
                self._made.move_to_end((rendition, width))
                if len(self._made) > _MOST_KEPT:
                    self._made.popitem(last=False)
        return Snapshot(jpeg=made.jpeg, etag=made.etag, age_s=age_s(made.packet))

    async def _newer(
        self, rendition: Rendition, before: VideoPacket | None, awaited: Callable[[], bool]
    ) -> VideoPacket | None:
        """The next one, or that before where none comes."""
        try:
            async with asyncio.timeout(_WAITS_S):
                with self._glance(SOURCE if rendition == SOURCE else UPSCALED):
                    while (packet := self._pictures.find(rendition)) is before and awaited():
                        await self._pictures.changes()
        except TimeoutError:
            return before
        return packet

    async def _make(self, packet: VideoPacket, size: tuple[int, int], width: int | None) -> _Made:
        across, down = size
        widest = MOST_ACROSS if width is None else min(width, MOST_ACROSS)
        if widest < across:
            across, down = widest, max(1, round(down * widest / across))
        now_s = time.monotonic()
        if len(self._times_s) == _MOST_MADE and now_s - self._times_s[0] < _WITHIN_S:
            raise TooManyRequests(
                f"{_MOST_MADE} sizes of the picture were made within a second: ask for one of them",
                retry_after_s=1,
            )
        self._times_s.append(now_s)
        try:
            jpeg = await asyncio.to_thread(to_jpeg, packet.payload, across, down)
        except ValueError as exc:
            raise NotReady(str(exc)) from exc
        etag = f'"{hashlib.blake2b(jpeg, digest_size=8).hexdigest()}"'
        return _Made(packet=packet, made_s=time.monotonic(), jpeg=jpeg, etag=etag)
