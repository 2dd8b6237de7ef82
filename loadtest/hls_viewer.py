"""One HLS viewer with as little delay as there is: each part as soon as it is listed, handed on."""

import asyncio
import re
import time
from collections.abc import Callable
from urllib.parse import quote, urljoin

from loadtest.http import Response, ServerError, request

START_TIMEOUT_S = 30.0
_INIT_OR_PART = re.compile(r'#EXT-X-(?P<tag>MAP|PART):(?:[^"]*,)?URI="(?P<uri>[^"]+)"')
_SEQUENCE = re.compile(r"#EXT-X-MEDIA-SEQUENCE:([0-9]+)")

OnPart = Callable[[bytes, float], None]  # an fMP4 file of it, when its last byte came


class HlsViewer:
    """Watches until it is told to leave. For servers of low-latency HLS, which answer when there is more."""

    def __init__(self, base: str, stream: str, on_part: OnPart) -> None:
        self._index = urljoin(base, f"hls/{quote(stream, safe='')}/index.m3u8")
        self._on_part = on_part
        self._left = False
        self._inits: dict[str, bytes] = {}
        self._seen: set[str] = set()

    def leave(self) -> None:
        self._left = True

    async def watch(self) -> None:
        """Raises ServerError where there is nothing to play, or no low latency."""
        media = urljoin(self._index, await asyncio.to_thread(self._variant))
        more = ""
        while not self._left:
            more = await asyncio.to_thread(self._load, media, more)

    def _variant(self) -> str:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            answer = request("GET", self._index)
            if answer.status == 200:
                return next(line for line in answer.text.splitlines() if line and not line.startswith("#"))
            if self._left or time.monotonic() > deadline_s:
                raise ServerError(f"{self._index} answered {answer.reason()}")
            time.sleep(0.2)

    def _load(self, media: str, query: str) -> str:
        """Fetches what is new, and returns the query that waits for more."""
        text = _get(media + query).text
        if "CAN-BLOCK-RELOAD=YES" not in text:
            raise ServerError(f"{media} is no playlist of low latency")
        found = _SEQUENCE.search(text)
        sequence, part = int(found[1]) if found else 0, 0
        init, first = "", not self._seen
        for line in text.splitlines():
            if line and not line.startswith("#"):
                sequence, part = sequence + 1, 0
            elif (tag := _INIT_OR_PART.match(line)) is None:
                continue
            elif tag["tag"] == "MAP":
                init = urljoin(media, tag["uri"])
            else:
                part += 1
                if tag["uri"] not in self._seen:
                    self._seen.add(tag["uri"])
                    if not first:  # what was listed before it came is old
                        self._fetch(init, urljoin(media, tag["uri"]))
        return f"?_HLS_msn={sequence}&_HLS_part={part}"

    def _fetch(self, init: str, url: str) -> None:
        if init not in self._inits:
            self._inits[init] = _get(init).body
        data = _get(url).body
        self._on_part(self._inits[init] + data, time.monotonic())


def _get(url: str) -> Response:
    answer = request("GET", url)
    if answer.status != 200:
        raise ServerError(f"{url} answered {answer.reason()}")
    return answer
