"""What a publisher says by RTSP, and how it is answered: ANNOUNCE, SETUP of each track, RECORD, media."""

import re
import secrets
from urllib.parse import urlsplit

from server.gateway.publish import Line, Malformed
from server.gateway.publish.rtsp.requests import Frames, RtspReader, RtspRequest, answer
from server.gateway.publish.rtsp.sdp import Announced, parse_sdp
from server.wire.messages import PublishedFormat
from server.wire.urls import publish_path

_METHODS = "OPTIONS, ANNOUNCE, SETUP, RECORD, TEARDOWN, GET_PARAMETER, SET_PARAMETER"
_TIMEOUT_S = 60  # after which a publisher should say that it is there; its media say so, too
_INTERLEAVED = re.compile(r"interleaved=(\d{1,3})-(\d{1,3})")


class RtspPublication:
    """Packets, with the description that says what they are."""

    format: PublishedFormat = "rtsp"

    def __init__(self, description: bytes) -> None:
        self.description = description

    def prelude(self) -> bytes:
        return b""

    def headers(self) -> bytes:
        return b""


class RtspDialogue:
    def __init__(self, line: Line) -> None:
        self._line = line
        self._reader = RtspReader()
        self._session = secrets.token_hex(8)
        self._path = b""
        self._announced: Announced | None = None
        self._channels: dict[int, int] = {}  # the publisher's → ours
        self._tracks: set[int] = set()
        self._recording = False
        self._over = False

    def feed(self, data: bytes) -> None:
        """Raises Malformed."""
        for part in self._reader.feed(data):
            if isinstance(part, Frames):
                self._frames(part.data)
            else:
                self._hear(part)
            if self._over:
                return

    def _frames(self, data: bytes) -> None:
        if not self._recording:
            raise Malformed("media before anything is published")
        frames = bytearray(data)
        at = 0
        kept = bytearray()
        while at < len(frames):
            end = at + 4 + (frames[at + 2] << 8 | frames[at + 3])
            channel = self._channels.get(frames[at + 1])
            if channel is not None:
                frames[at + 1] = channel
                kept += frames[at:end]
            at = end
        if kept:
            self._line.push(bytes(kept), "start", picture=True)

    def _hear(self, request: RtspRequest) -> None:
        match request.method:
            case "OPTIONS":
                self._answer(request, "200 OK", {"Public": _METHODS})
            case "GET_PARAMETER" | "SET_PARAMETER":
                self._answer(request, "200 OK")
            case "ANNOUNCE":
                self._announce(request)
            case "SETUP" if self._announced is not None and not self._recording:
                self._set_up(request, self._announced)
            case "RECORD" if self._announced is not None and self._tracks:
                self._record(request, self._announced)
            case "TEARDOWN":
                self._answer(request, "200 OK")
                self._end("the publisher has ended")
            case "SETUP" | "RECORD":
                self._answer(request, "455 Method Not Valid in This State")
            case _:
                self._answer(request, "501 Not Implemented")

    def _announce(self, request: RtspRequest) -> None:
        if self._announced is not None:
            raise Malformed("it announces twice")
        self._announced = parse_sdp(request.body)
        self._path = _path(request.url)
        if self._line.knows(self._path):
            self._answer(request, "200 OK")
        else:
            self._deny(request)

    def _set_up(self, request: RtspRequest, announced: Announced) -> None:
        transport = request.headers.get("transport", "")
        found = _INTERLEAVED.search(transport)
        if (
            "RTP/AVP/TCP" not in transport.upper()
            or found is None
            or not set(map(int, found.groups())) <= _BYTE
        ):
            self._answer(request, "461 Unsupported Transport")
            return
        track = _track(request.url, announced, self._tracks)
        if track is None:
            self._answer(request, "404 Not Found")
            return
        self._tracks.add(track)
        for own, theirs in enumerate(map(int, found.groups())):
            self._channels[theirs] = 2 * track + own
        self._answer(
            request,
            "200 OK",
            {"Transport": f"RTP/AVP/TCP;unicast;interleaved={found[1]}-{found[2]};mode=record"},
        )

    def _record(self, request: RtspRequest, announced: Announced) -> None:
        if self._recording:
            self._answer(request, "200 OK")
            return
        match self._line.publish(self._path, RtspPublication(announced.sdp)):
            case "accepted":
                self._recording = True
                self._answer(request, "200 OK")
            case "busy":
                self._refuse(request, "453 Not Enough Bandwidth", "somebody else publishes there")
            case "denied":
                self._deny(request)

    def _deny(self, request: RtspRequest) -> None:
        self._refuse(request, "404 Not Found", "no such path, or a wrong key")

    def _refuse(self, request: RtspRequest, status: str, reason: str) -> None:
        self._answer(request, status)
        self._end(reason)

    def _end(self, reason: str) -> None:
        self._over = True
        self._line.hang_up(reason)

    def _answer(self, request: RtspRequest, status: str, headers: dict[str, str] | None = None) -> None:
        session = {"Session": f"{self._session};timeout={_TIMEOUT_S}"} if self._announced else {}
        self._line.write(answer(request, status, session | (headers or {})))


_BYTE = frozenset(range(256))


def _path(url: str) -> bytes:
    try:
        parts = urlsplit(url, allow_fragments=False)
    except ValueError as exc:
        raise Malformed("a URL that is none") from exc
    return publish_path(f"{parts.path}?{parts.query}")


def _track(url: str, announced: Announced, taken: set[int]) -> int | None:
    """The track that a SETUP means: by its control, or the next one that has none."""
    for track, control in enumerate(announced.controls):
        if control and track not in taken and (url == control or url.endswith(f"/{control}")):
            return track
    return next((t for t, control in enumerate(announced.controls) if not control and t not in taken), None)
