"""One HLS viewer that fetches each segment as soon as it is listed, and hands it on."""

import asyncio
import re
import time
from collections.abc import Callable
from urllib.parse import quote, urljoin

from loadtest.http import Response, ServerError, request

POLL_S = 0.005  # while a segment is due
REST_S = 0.1  # and before: a service allows an address so many requests a second
DUE = 0.7  # of a segment's time since the last one came
START_TIMEOUT_S = 30.0
_MAP = re.compile(r'#EXT-X-MAP:URI="([^"]+)"')
_EXTINF = re.compile(r"#EXTINF:([0-9.]+)")

OnSegment = Callable[[bytes, float], None]  # an fMP4 file of it, when its last byte came


class HlsViewer:
    """Watches until it is told to leave."""

    def __init__(self, base: str, stream: str, on_segment: OnSegment) -> None:
        self._index = urljoin(base, f"hls/{quote(stream, safe='')}/index.m3u8")
        self._on_segment = on_segment
        self._left = False
        self._inits: dict[str, bytes] = {}
        self._seen: set[str] = set()
        self._due_s = 0.0  # the next segment, at the earliest

    def leave(self) -> None:
        self._left = True

    async def watch(self) -> None:
        """Raises ServerError where there is nothing to play."""
        media = urljoin(self._index, await asyncio.to_thread(self._variant))
        while not self._left:
            await asyncio.to_thread(self._poll, media)
            await asyncio.sleep(POLL_S if time.monotonic() >= self._due_s else REST_S)

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
        text = _get(media).text
        init, lasts_s = "", 0.0
        first = not self._seen
        for line in text.splitlines():
            if found := _MAP.match(line):
                init = urljoin(media, found[1])
            elif found := _EXTINF.match(line):
                lasts_s = float(found[1])
            elif line and not line.startswith("#") and line not in self._seen:
                self._seen.add(line)
                self._due_s = time.monotonic() + DUE * lasts_s
                if not first:  # what was listed before it came is old
                    self._fetch(init, urljoin(media, line))

    def _fetch(self, init: str, url: str) -> None:
        if init not in self._inits:
            self._inits[init] = _get(init).body
        data = _get(url).body
        self._on_segment(self._inits[init] + data, time.monotonic())


def _get(url: str) -> Response:
    answer = request("GET", url)
    if answer.status != 200:
        raise ServerError(f"{url} answered {answer.reason()}")
    return answer
