"""A rough count of HLS players: those that fetched the playlist lately, told apart by address and name."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

REMEMBERED_S = 10.0
MOST = 4096


@dataclass(slots=True)
class _Player:
    seen_s: float
    segment: str = ""  # the last that it fetched
    told_end: bool = False


class Players:
    """HLS has no sessions; two like players behind one address count as one."""

    def __init__(self) -> None:
        self._players: dict[bytes, _Player] = {}

    def saw(self, name: str, now_s: float) -> None:
        key = _key(name)
        player = self._players.pop(key, None) or _Player(now_s)
        player.seen_s = now_s
        self._players[key] = player  # at the end: the dict is in the order of the last fetch
        if len(self._players) > MOST:
            del self._players[next(iter(self._players))]

    def fetched(self, name: str, segment: str) -> None:
        if player := self._players.get(_key(name)):
            player.segment = segment

    def told_end(self, name: str) -> None:
        """It has the playlist that ends."""
        if player := self._players.get(_key(name)):
            player.told_end = True

    def count(self, now_s: float) -> int:
        while self._players:
            key, player = next(iter(self._players.items()))
            if now_s - player.seen_s <= REMEMBERED_S:
                break
            del self._players[key]
        return len(self._players)

    def waiting(self, last: Collection[str], now_s: float) -> int:
        """Those that lack the playlist's end or the last segment, by any of its names."""
        self.count(now_s)
        return sum(not player.told_end or player.segment not in last for player in self._players.values())


def _key(name: str) -> bytes:
    # Its hash: a name is as long as the player likes.
    return hashlib.blake2b(name.encode(), digest_size=16).digest()
