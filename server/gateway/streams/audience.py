"""Whether somebody watches a stream, and which of its renditions."""

import asyncio
import time
from collections.abc import Callable

from server.gateway.figures.figures import Figures
from server.gateway.figures.players import REMEMBERED_S
from server.wire.messages import Rendition

_LATER_S = REMEMBERED_S + 0.1  # by then a player that has not come back is forgotten


class Audience:
    """Counts viewers into `figures`; `on_change` hears when other renditions are watched than before."""

    def __init__(self, figures: Figures, *, always: bool, on_change: Callable[[], None]) -> None:
        """`always`: somebody has to be taken for granted."""
        self.watches: tuple[Rendition, ...] = ("upscaled",) if always else ()
        self._figures = figures
        self._always = always
        self._on_change = on_change
        self._plain = False
        self._look: asyncio.TimerHandle | None = None
        self._closed = False

    def count_viewer(self, change: int) -> None:
        """WebRTC viewers, from their offer on."""
        self._figures.count_viewer(change)
        self._update()

    def saw_player(self, name: str) -> None:
        """An HLS player fetched a playlist."""
        self._figures.hls_players.saw(name, time.monotonic())
        self._update()

    def watch_plain(self, wanted: bool) -> None:
        self._plain = wanted
        self._update()

    def take_for_granted(self, always: bool) -> None:
        self._always = always
        self._update()

    def close(self) -> None:
        self._closed = True
        if self._look is not None:
            self._look.cancel()

    def _update(self) -> None:
        if self._closed:
            return
        players = self._figures.hls_players.count(time.monotonic())
        watched = self._always or self._figures.whep_viewers or players
        watches: tuple[Rendition, ...] = ()
        if watched:
            watches = ("upscaled", "plain") if self._plain else ("upscaled",)
        if self._look is not None:
            self._look.cancel()
        # Players come back by themselves as long as they play; that one does not, nobody says.
        self._look = asyncio.get_running_loop().call_later(_LATER_S, self._update) if players else None
        if watches != self.watches:
            self.watches = watches
            self._on_change()
