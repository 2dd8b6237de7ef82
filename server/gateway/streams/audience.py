"""Whether somebody watches a stream, and which of its renditions."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Literal

from server.gateway.figures.figures import Figures
from server.gateway.figures.players import REMEMBERED_S
from server.wire.messages import UPSCALED, Rendition

_LATER_S = REMEMBERED_S + 0.1  # by then a player that has not come back is forgotten
# The last WebRTC viewer may come back at once, by another session: a page that is loaded anew, or compares.
_LINGER_S = 2.0

# What is to go on with nobody there: pictures are made, or there are HLS segments of them as well.
Granted = Literal["watched", "played"]


class Audience:
    """Counts viewers into `figures`; `on_change` hears when other renditions are watched or played."""

    def __init__(self, figures: Figures, granted: Granted | None, *, on_change: Callable[[], None]) -> None:
        self.watches: tuple[Rendition, ...] = (UPSCALED,) if granted else ()
        self.plays: tuple[Rendition, ...] = (UPSCALED,) if granted == "played" else ()  # HLS has to be ready
        self._figures = figures
        self._granted = granted
        self._on_change = on_change
        self._joined: frozenset[Rendition] = frozenset()  # by WebRTC viewers
        self._played_s: dict[Rendition, float] = {}  # when an HLS player last fetched its playlist
        self._glances: Counter[Rendition] = Counter()
        self._left_s = float("-inf")  # when the last WebRTC viewer did
        self._look: asyncio.TimerHandle | None = None
        self._closed = False

    def count_viewer(self, change: int) -> None:
        """WebRTC viewers, from their offer on."""
        self._figures.count_viewer(change)
        if not self._figures.whep_viewers:
            self._left_s = time.monotonic()
        self._update()

    def saw_player(self, name: str, rendition: Rendition = UPSCALED) -> None:
        """An HLS player fetched a playlist, of that rendition or of all."""
        self._played_s[rendition] = time.monotonic()
        self._figures.hls_players.saw(name, self._played_s[rendition])
        self._update()

    def join(self, renditions: Collection[Rendition]) -> None:
        """WebRTC viewers watch these."""
        self._joined = frozenset(renditions)
        self._update()

    @contextmanager
    def glance(self, rendition: Rendition) -> Iterator[None]:
        """The rendition is watched as long as the block lasts, by somebody who wants a single picture."""
        self._glances[rendition] += 1
        self._update()
        try:
            yield
        finally:
            self._glances[rendition] -= 1
            self._glances += Counter()  # without those that are 0
            self._update()

    def grant(self, granted: Granted | None) -> None:
        self._granted = granted
        self._update()

    def close(self) -> None:
        self._closed = True
        if self._look is not None:
            self._look.cancel()

    def _update(self) -> None:
        if self._closed:
            return
        now_s = time.monotonic()
        players = self._figures.hls_players.count(now_s)
        lingers = now_s - self._left_s < _LINGER_S
        played = self._granted == "played" or self._figures.whep_viewers or players or lingers
        others = set(self._glances)
        plays: tuple[Rendition, ...] = ()
        if played:
            self._played_s = {
                name: at_s for name, at_s in self._played_s.items() if now_s - at_s <= REMEMBERED_S
            }
            plays = (UPSCALED, *sorted(self._played_s.keys() - {UPSCALED}))
            others |= self._joined | set(plays)
        watches = (UPSCALED, *sorted(others - {UPSCALED})) if others or self._granted else ()
        if self._look is not None:
            self._look.cancel()
        # Players come back by themselves as long as they play; that one does not, nobody says.
        later_s = _LATER_S if players else self._left_s + _LINGER_S - now_s if lingers else 0.0
        self._look = asyncio.get_running_loop().call_later(later_s, self._update) if later_s else None
        if (watches, plays) != (self.watches, self.plays):
            self.watches, self.plays = watches, plays
            self._on_change()
