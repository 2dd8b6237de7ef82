"""How the load test's pictures get to the service: MPEG-TS over UDP, RTMP, RTSP, and HLS that it serves."""

import http.server
import socket
import threading
from collections import deque
from typing import Literal, get_args

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from loadtest.numbered_source import OnSent
from loadtest.pieces import Pieces, transport_stream

WayIn = Literal["udp", "srt", "rtmp", "rtsp", "hls", "whip"]
WAYS_IN: tuple[WayIn, ...] = get_args(WayIn)

_DATAGRAM_BYTES = 7 * 188
_LISTED = 4  # segments


class Udp:
    """Each frame as a burst of datagrams, whoever listens."""

    def __init__(self, host: str, port: int, on_sent: OnSent) -> None:
        self._where = host, port
        self._on_sent = on_sent
        self._pieces = Pieces()
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)

    def open(self) -> OutputContainer:
        return transport_stream(self._pieces)

    def send(self, container: OutputContainer, packet: "Packet[VideoStream]", number: int) -> None:
        container.mux_one(packet)
        data = self._pieces.take()
        for at in range(0, len(data), _DATAGRAM_BYTES):
            self._socket.sendto(data[at : at + _DATAGRAM_BYTES], self._where)
        self._on_sent([number])

    def close(self) -> None:
        self._socket.close()


class Published:
    """libav's own client, which writes each frame at once."""

    def __init__(self, url: str, on_sent: OnSent) -> None:
        self._url = url
        self._on_sent = on_sent

    def open(self) -> OutputContainer:
        if self._url.startswith("rtsp"):
            return av.open(self._url, "w", format="rtsp", options={"rtsp_transport": "tcp"})
        return av.open(self._url, "w", format="flv", options={"flush_packets": "1", "tcp_nodelay": "1"})

    def send(self, container: OutputContainer, packet: "Packet[VideoStream]", number: int) -> None:
        container.mux_one(packet)
        self._on_sent([number])

    def close(self) -> None:
        pass


class HlsOrigin:
    """Serves one segment for each group of pictures. They are sent when one that was asked for is written."""

    def __init__(self, host: str, fps: int, on_sent: OnSent) -> None:
        self._fps = fps
        self._on_sent = on_sent
        self._pieces = Pieces()
        self._lock = threading.Lock()
        self._segments: deque[tuple[int, float, bytes, list[int]]] = deque(maxlen=_LISTED + 2)
        self._growing, self._numbers = b"", list[int]()
        self._made = 0
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, body, numbers = origin._answer(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                origin._on_sent(numbers)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((host, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="hls-origin")
        self._thread.start()
        self.port = self._server.server_address[1]

    def open(self) -> OutputContainer:
        return transport_stream(self._pieces, mpegts_flags="+pat_pmt_at_frames")

    def send(self, container: OutputContainer, packet: "Packet[VideoStream]", number: int) -> None:
        container.mux_one(packet)
        if packet.is_keyframe and self._numbers:
            seconds = len(self._numbers) / self._fps
            with self._lock:
                self._segments.append((self._made, seconds, self._growing, self._numbers))
            self._made += 1
            self._growing, self._numbers = b"", []
        self._growing += self._pieces.take()
        self._numbers.append(number)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, path: str) -> tuple[int, bytes, list[int]]:
        with self._lock:
            segments = list(self._segments)
        if path.endswith(".m3u8"):
            listed = segments[-_LISTED:]
            if not listed:
                return 404, b"", []
            lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1"]
            lines.append(f"#EXT-X-MEDIA-SEQUENCE:{listed[0][0]}")
            for number, seconds, _, _ in listed:
                lines += [f"#EXTINF:{seconds:.3f},", f"{number}.ts"]
            return 200, "\n".join([*lines, ""]).encode(), []
        for number, _, data, numbers in segments:
            if path == f"/{number}.ts":
                return 200, data, numbers
        return 404, b"", []
