"""Which rendition one viewer gets: the largest that its network carries."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from server.gateway.webrtc.path import Path
from server.wire.messages import Rendition

# Before it is tried whether the network carries more again: at first, and at most after it didn't.
_FIRST_WAIT_S, _LAST_WAIT_S = 4.0, 8.0
# A trial sends what the larger rendition would need and somewhat more, in steps, and is given up where a
# queue grows, long before the viewer's picture suffers.
_TRIAL_S, _TRIAL_STEPS, _MARGIN = 2.0, 20, 1.1
_TRIAL_QUEUE_S, _TRIAL_LOSS = 0.06, 0.08
_DELIVERED = 0.9
_SETTLE_S = 1.0  # after a change, the network still delivers what was before it


class RenditionChoice:
    """Belongs to one viewer. `switch` begins another rendition; `pad` sends that many bytes of what was sent
    before, for the sake of the trial."""

    def __init__(
        self,
        renditions: Sequence[Rendition],
        path: Path,
        *,
        bitrate_bps: Callable[[Rendition], float],
        switch: Callable[[Rendition], None],
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
                self._change(self.level + 1, f"{self._path.delivered_bps / 1e6:.1f} Mbit/s arrive")
        elif self.level and self._trial is None and now_s - self._since_s >= self._wait_s:
            self._trial = asyncio.create_task(self._try_larger())

    def close(self) -> None:
        if self._trial is not None:
            self._trial.cancel()

    def _change(self, level: int, reason: str) -> None:
        if level > self.level:
            self._wait_s = min(self._wait_s * 1.5, _LAST_WAIT_S)
        self.level, self.reason = level, reason
        self._since_s = self._clock()
        self._path.forget(self._since_s)
        self._switch(self.rendition)

    async def _try_larger(self) -> None:
        try:
            carried = await self._carries(self._bitrate_bps(self._renditions[self.level - 1]) * _MARGIN)
        except ConnectionError:
            return  # the sending of frames finds out as well
        finally:
            self._trial = None
            self._since_s = self._clock()
        if carried:
            self._wait_s = _FIRST_WAIT_S
            self._change(self.level - 1, "the network carries it")
        else:
            self._wait_s = min(self._wait_s * 1.5, _LAST_WAIT_S)

    async def _carries(self, wanted_bps: float) -> bool:
        path, step_s = self._path, _TRIAL_S / _TRIAL_STEPS
        used_bps = min(self._bitrate_bps(self.rendition), wanted_bps)
        loss = path.loss
        most_bps = 0.0
        for step in range(1, _TRIAL_STEPS + 1):
            share = min(1.0, 2 * step / _TRIAL_STEPS)  # grows for the first half
            await self._pad(round((wanted_bps - used_bps) * share * step_s / 8))
            await asyncio.sleep(step_s)
            if path.queue_s > _TRIAL_QUEUE_S or path.loss > loss + _TRIAL_LOSS:
                return False
            most_bps = max(most_bps, path.delivered_bps)
        # Where the viewer doesn't say what arrives, that nothing was lost has to do.
        return most_bps == 0.0 or most_bps >= _DELIVERED * wanted_bps
