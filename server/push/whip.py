"""A push by WHIP (RFC 9725): H.264 as it comes, and its sound in Opus, through aiortc.

libav's own muxer does not get through a DTLS handshake with aiortc and others.
"""

import asyncio
import http.client
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Coroutine
from fractions import Fraction
from http import HTTPStatus
from typing import Any, Literal, Self, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

import av
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.exceptions import InvalidStateError, OperationError
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.packet import Packet

from server.push.sinks import OPEN_S

T = TypeVar("T")

_OPUS_HZ, _OPUS_SAMPLES = 48_000, 960
_OPUS_BPS = 128_000
_MOST_WAITING = 256  # packets of a track: with so many pictures the connection is of no more use
_MOST_REDIRECTS = 3
_LARGEST_ANSWER = 1 << 16
_LARGEST_DATAGRAM = 1500
_END_S = 2.0
_OVER = ("failed", "closed")


class WhipSink:
    """One publication. Its connection runs in a thread of its own."""

    def __init__(self, address: str, source: InputContainer, *, on_need_keyframe: Callable[[], None]) -> None:
        """Raises OSError where nobody takes it."""
        parts = urlsplit(address)
        token, _, host = parts.netloc.rpartition("@")
        self._token = unquote(token)
        self._url = parts._replace(scheme=parts.scheme.replace("whip", "http"), netloc=host).geturl()
        self._resource: str | None = None
        video = source.streams.video[0]
        self._annex_b = BitStreamFilterContext("h264_mp4toannexb", video)
        self._opus = _Opus() if source.streams.audio else None
        self._on_need_keyframe = on_need_keyframe
        self._state = "new"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="whip", daemon=True)
        self._thread.start()
        try:
            self._wait(self._publish())
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def send(self, packet: "Packet[Any]") -> None:
        if self._state in _OVER or self._picture.full:
            raise OSError("the other side has gone" if self._state in _OVER else "it takes no pictures")
        if packet.stream.type == "video":
            for unit in self._annex_b.filter(packet):
                self._loop.call_soon_threadsafe(self._picture.put, unit)
        elif self._opus is not None and self._sound is not None:
            for encoded in self._opus.encode(packet):
                self._loop.call_soon_threadsafe(self._sound.put, encoded)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _publish(self) -> None:
        self._picture = _Track("video")
        self._sound = _Track("audio") if self._opus is not None else None
        self._peer = peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        transceiver = peer.addTransceiver(self._picture, direction="sendonly")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        transceiver.setCodecPreferences([codec for codec in codecs if codec.name in ("H264", "rtx")])
        # An encoder of aiortc's own would hear of it; ours is the stream's.
        transceiver.sender._send_keyframe = self._on_need_keyframe  # type: ignore[method-assign]
        connection = transceiver.sender.transport.transport._connection
        take = connection.data_received
        # libsrtp's binding raises for anybody's longer datagram, which would end the connection.
        vars(connection)["data_received"] = lambda data, component: (
            take(data, component) if len(data) <= _LARGEST_DATAGRAM else None
        )
        if self._sound is not None:
            peer.addTransceiver(self._sound, direction="sendonly")
        await peer.setLocalDescription(await peer.createOffer())
        answer = await asyncio.to_thread(self._post, peer.localDescription.sdp.encode())
        changed = asyncio.Event()

        @peer.on("connectionstatechange")
        def on_change() -> None:
            self._state = peer.connectionState
            changed.set()

        try:
            await peer.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
            async with asyncio.timeout(OPEN_S):
                while self._state not in ("connected", *_OVER):
                    changed.clear()
                    await changed.wait()
        except (ValueError, OperationError, InvalidStateError) as exc:
            raise OSError(f"its answer can't be used: {exc}") from exc
        except TimeoutError:
            raise OSError(f"no connection within {OPEN_S:g} s") from None
        if self._state in _OVER:
            raise OSError(f"the connection is {self._state}")

    async def _end(self) -> None:
        try:
            if self._resource is not None:
                await asyncio.to_thread(self._request, "DELETE", self._resource, None)
        except OSError:
            pass  # it ends there as well once it hears no more of us
        finally:
            await self._peer.close()

    def _post(self, offer: bytes) -> str:
        """The answer. Raises OSError."""
        url = self._url
        for _ in range(_MOST_REDIRECTS + 1):
            status, headers, body = self._request("POST", url, offer)
            location = urljoin(url, headers.get("Location", ""))
            if status == HTTPStatus.CREATED and "Location" in headers:
                self._resource = location
                return body.decode(errors="replace")
            if status not in (HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT):
                raise OSError(f"the server answers {_named(status)}")
            url = location
        raise OSError("the server redirects too often")

    def _request(
        self, method: Literal["POST", "DELETE"], url: str, body: bytes | None
    ) -> tuple[int, Any, bytes]:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise OSError("the server redirects to what is no HTTP")
        headers = {"Content-Type": "application/sdp"} if body is not None else {}
        own = urlsplit(self._url)
        # It is no business of another host, nor of who listens on the way to this one.
        if self._token and parts.netloc == own.netloc and parts.scheme in (own.scheme, "https"):
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(url, data=body, method=method, headers=headers)  # noqa: S310
        try:
            with _opener.open(request, timeout=OPEN_S if method == "POST" else _END_S) as answer:
                return answer.status, answer.headers, answer.read(_LARGEST_ANSWER)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.headers, b""
        except (http.client.HTTPException, ValueError) as exc:
            raise OSError("the server's answer is no HTTP") from exc


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect())


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


class _Track(MediaStreamTrack):
    """Packets that are encoded already, of which the oldest are dropped; for the loop."""

    def __init__(self, kind: Literal["video", "audio"]) -> None:
        super().__init__()
        self.kind = kind
        self._packets = deque["Packet[Any]"](maxlen=_MOST_WAITING)
        self._there = asyncio.Event()

    @property
    def full(self) -> bool:
        return len(self._packets) == _MOST_WAITING

    def put(self, packet: "Packet[Any]") -> None:
        self._packets.append(packet)
        self._there.set()

    async def recv(self) -> "Packet[Any]":
        while not self._packets:
            self._there.clear()
            await self._there.wait()
        return self._packets.popleft()


class _Opus:
    """AAC as Opus in frames of 20 ms, at the same times."""

    def __init__(self) -> None:
        encoder = av.CodecContext.create("libopus", "w")
        assert isinstance(encoder, AudioCodecContext)
        encoder.sample_rate, encoder.format, encoder.layout = _OPUS_HZ, "s16", "stereo"
        encoder.time_base = Fraction(1, _OPUS_HZ)
        encoder.bit_rate = _OPUS_BPS
        self._encoder = encoder
        self._resampler = av.AudioResampler("s16", "stereo", _OPUS_HZ, frame_size=_OPUS_SAMPLES)

    def encode(self, packet: "Packet[Any]") -> list["Packet[Any]"]:
        encoded: list[Packet[Any]] = []
        for frame in packet.decode():
            assert isinstance(frame, AudioFrame)
            for whole in self._resampler.resample(frame):
                encoded += self._encoder.encode(whole)
        return encoded
