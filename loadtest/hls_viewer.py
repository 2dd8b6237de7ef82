"""One HLS viewer that fetches each segment as soon as it is listed, and hands it on."""

import asyncio
import re
import time
from collections.abc import Callable
from urllib.parse import quote, urljoin

from loadtest.http import ServerError, request

POLL_S = 0.005
START_TIMEOUT_S = 30.0
_MAP = re.compile(r'#EXT-X-MAP:URI="([^"]+)"')

OnSegment = Callable[[bytes, float], None]  # an fMP4 file of it, when its last byte came


class HlsViewer:
    """Watches until it is told to leave."""

    def __init__(self, base: str, stream: str, on_segment: OnSegment) -> None:
        self._index = urljoin(base, f"hls/{quote(stream, safe='')}/index.m3u8")
        self._on_segment = on_segment
        self._left = False
        self._inits: dict[str, bytes] = {}
        self._seen: set[str] = set()

    def leave(self) -> None:
        self._left = True

    async def watch(self) -> None:
        """Raises ServerError where there is nothing to play."""
        media = urljoin(self._index, await asyncio.to_thread(self._variant))
        while not self._left:
            await asyncio.to_thread(self._poll, media)
            await asyncio.sleep(POLL_S)

    def _variant(self) -> str:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            answer = request("GET", self._index)
            if answer.status == 200:
                return next(line for line in answer.text.splitlines() if line and not line.startswith("#"))
            if self._left or time.monotonic() > deadline_s:
                raise ServerError(f"{self._index} answered {answer.reason()}")
            time.sleep(0.2)

    def _poll(self, media: str) -> None:
        answer = request("GET", media)
        if answer.status != 200:
            return
        init = ""
        first = not self._seen
        for line in answer.text.splitlines():
            if found := _MAP.match(line):
                init = urljoin(media, found[1])
            elif line and not line.startswith("#") and line not in self._seen:
                self._seen.add(line)
                if not first:  # what was listed before it came is old
                    self._fetch(init, urljoin(media, line))

    def _fetch(self, init: str, url: str) -> None:
        if init not in self._inits:
            self._inits[init] = request("GET", init).body
        answer = request("GET", url)
        if answer.status == 200:
            self._on_segment(self._inits[init] + answer.body, time.monotonic())
