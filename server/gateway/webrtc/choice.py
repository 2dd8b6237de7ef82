"""Which rendition one viewer gets: the largest that its network carries."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from server.gateway.webrtc.path import Path
from server.wire.messages import Rendition

# Before it is tried whether the network carries more again: at first, and at most after it didn't.
_FIRST_WAIT_S, _LAST_WAIT_S, _LAST_BLIND_WAIT_S = 4.0, 8.0, 64.0
_CLIMB_WAIT_S = 1.5  # after it did
_FITS = 0.85  # of what arrives, a rendition may take
# A trial sends what the larger rendition would need and somewhat more, in steps, and is given up where a
# queue grows, long before the viewer's picture suffers.
_TRIAL_S, _TRIAL_STEPS, _MARGIN = 2.0, 20, 1.1
_TRIAL_QUEUE_S, _TRIAL_LOSS = 0.06, 0.08
_DELIVERED = 0.9
_SETTLE_S = 1.0  # after a change, the network still delivers what was before it


class RenditionChoice:
    """Belongs to one viewer. `switch` begins another rendition, and hears whether it is a smaller one; `pad`
    sends that many bytes of what was sent before, for the sake of the trial."""

    def __init__(
        self,
        renditions: Sequence[Rendition],
        path: Path,
        *,
        bitrate_bps: Callable[[Rendition], float],
        switch: Callable[[Rendition, bool], None],
        pad: Callable[[int], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """`renditions`: the largest first."""
        self.level = 0
        self.reason = ""  # for the last change
        self._renditions = renditions
        self._path = path
        self._bitrate_bps = bitrate_bps
        self._switch = switch
        self._pad = pad
        self._clock = clock
        self._wait_s = _FIRST_WAIT_S
        self._since_s = clock()  # the last change or trial
        self._trial: asyncio.Task[None] | None = None

    @property
    def rendition(self) -> Rendition:
        return self._renditions[self.level]

    def look(self) -> None:
        """Something has been heard of the path."""
        now_s = self._clock()
        if now_s - self._since_s < (_SETTLE_S if self.level else 0.0):
            return
        if self._path.congested(now_s):
            if self.level + 1 < len(self._renditions):
                arrive = f"{self._path.delivered_bps / 1e6:.1f} Mbit/s arrive"
                lost = f"{self._path.loss:.0%} is lost"
                self._change(self._lower_level(), arrive if self._path.delivered_bps else lost)
        elif self.level and self._trial is None and now_s - self._since_s >= self._wait_s:
            if self._path.delivered_bps:
                self._trial = asyncio.create_task(self._try_larger())
            else:
                self._change(self.level - 1, "no feedback says whether it fits")

    def close(self) -> None:
        if self._trial is not None:
            self._trial.cancel()

    def _lower_level(self) -> int:
        """The next smaller rendition, or the largest that fits where it is known what arrives."""
        lower = range(self.level + 1, len(self._renditions))
        room_bps = _FITS * self._path.delivered_bps
        if not room_bps:
            return lower[0]
        return next((level for level in lower if self._bps(level) <= room_bps), lower[-1])

    def _bps(self, level: int) -> float:
        return self._bitrate_bps(self._renditions[level])

    def _change(self, level: int, reason: str) -> None:
        smaller = level > self.level
        self.close()  # a trial is of what was before
        if smaller:
            self._wait_s = max(self._wait_s, _FIRST_WAIT_S)
            if not self._path.delivered_bps:
                self._wait_s = min(self._wait_s * 2, _LAST_BLIND_WAIT_S)  # the next attempt may be seen, too
        self.level, self.reason = level, reason
        self._since_s = self._clock()
        self._path.forget(self._since_s)
        self._switch(self.rendition, smaller)

    async def _try_larger(self) -> None:
        try:
            carried = await self._carries(self._bps(self.level - 1) * _MARGIN)
        except ConnectionError:
            return  # the sending of frames finds out as well
        finally:
            self._trial = None
            self._since_s = self._clock()
        if carried:
            self._wait_s = _CLIMB_WAIT_S
            self._change(self.level - 1, "the network carries it")
        else:
            self._wait_s = min(self._wait_s * 1.5, _LAST_WAIT_S)

    async def _carries(self, wanted_bps: float) -> bool:
        path, step_s = self._path, _TRIAL_S / _TRIAL_STEPS
        used_bps = min(self._bps(self.level), wanted_bps)
        loss = path.loss
        most_bps = 0.0
        for step in range(1, _TRIAL_STEPS + 1):
            share = min(1.0, 2 * step / _TRIAL_STEPS)  # grows for the first half
            await self._pad(round((wanted_bps - used_bps) * share * step_s / 8))
            await asyncio.sleep(step_s)
            if path.queue_s > _TRIAL_QUEUE_S or path.loss > loss + _TRIAL_LOSS:
                return False
            most_bps = max(most_bps, path.delivered_bps)
        return most_bps >= _DELIVERED * wanted_bps
