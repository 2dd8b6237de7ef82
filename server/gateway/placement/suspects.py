"""Which streams are kept from others: those that were there when workers died, as one may be the cause."""

import time
from collections.abc import Callable, Iterable

# So many deaths of workers that a stream was in, within so many seconds.
DEATHS = 2
FORGOTTEN_AFTER_S = 600.0


class Suspects:
    """Remembers for ten minutes who was where. One that dies alone has been found, and clears those who were
    there with it."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._deaths: list[tuple[float, set[str]]] = []

    def trouble(self, streams: Iterable[str], *, isolated: bool) -> None:
        """A worker with these has died, or one of them alone broke; `isolated`: no other was there."""
        present = set(streams)
        if isolated:
            for _, suspects in self._deaths:
                if present <= suspects:
                    suspects &= present
        self._deaths.append((self._clock_s(), present))

    def isolated(self, stream: str) -> bool:
        """Whether it has to be kept from others."""
        since_s = self._clock_s() - FORGOTTEN_AFTER_S
        self._deaths = [death for death in self._deaths if death[0] > since_s]
        return sum(stream in suspects for _, suspects in self._deaths) >= DEATHS
