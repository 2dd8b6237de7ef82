"""A rough count of HLS players: those that fetched the playlist lately, told apart by address and name."""

import hashlib

REMEMBERED_S = 10.0
MOST = 4096


class Players:
    """HLS has no sessions; two like players behind one address count as one."""

    def __init__(self) -> None:
        self._seen_s: dict[bytes, float] = {}

    def saw(self, name: str, now_s: float) -> None:
        # Its hash: a name is as long as the player likes.
        player = hashlib.blake2b(name.encode(), digest_size=16).digest()
        self._seen_s.pop(player, None)  # to the end: the dict is in the order of the last fetch
        self._seen_s[player] = now_s
        if len(self._seen_s) > MOST:
            del self._seen_s[next(iter(self._seen_s))]

    def count(self, now_s: float) -> int:
        while self._seen_s:
            player, seen_s = next(iter(self._seen_s.items()))
            if now_s - seen_s <= REMEMBERED_S:
                break
            del self._seen_s[player]
        return len(self._seen_s)
