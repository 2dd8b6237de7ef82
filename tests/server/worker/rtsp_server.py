"""A small RTSP server: one clip in MPEG-TS, over its TCP connection, to who logs in by digest (RFC 2617)."""

import hashlib
import re
import socketserver
import struct
import time
from pathlib import Path

REALM, NONCE = "camera", "5f2b1c"
_PER_PACKET = 7 * 188
_SDP = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=clip\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track1\r\n"


class RtspServer(socketserver.ThreadingTCPServer):
    """`login` is user and password; None lets everyone in. `answers` are the statuses that were given."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, clip: Path, login: tuple[str, str] | None = None) -> None:
        self.clip = clip.read_bytes()
        self.login = login
        self.answers: list[int] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that refuses the certificate, or goes


class _Handler(socketserver.StreamRequestHandler):
    server: RtspServer

    def handle(self) -> None:
        while lines := self._request():
            method, url, _ = lines[0].split(" ", 2)
            headers = {
                name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines[1:])
            }
            if method != "OPTIONS" and not self._knows(method, url, headers.get("authorization", "")):
                challenge = f'WWW-Authenticate: Digest realm="{REALM}", nonce="{NONCE}"'
                self._answer(401, headers, challenge)
                continue
            match method:
                case "DESCRIBE":
                    self._answer(200, headers, "Content-Type: application/sdp", body=_SDP)
                case "SETUP":
                    self._answer(200, headers, "Session: 1", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
                case "PLAY":
                    self._answer(200, headers, "Session: 1")
                    self._play()
                    return
                case _:
                    self._answer(200, headers, "Public: OPTIONS, DESCRIBE, SETUP, PLAY")

    def _request(self) -> list[str]:
        lines = []
        while (line := self.rfile.readline().decode().rstrip("\r\n")) or not lines:
            if not line:
                return []
            lines.append(line)
        return lines

    def _knows(self, method: str, url: str, authorization: str) -> bool:
        if self.server.login is None:
            return True
        given = dict(re.findall(r'(\w+)="([^"]*)"', authorization))
        user, password = self.server.login

        def md5(text: str) -> str:
            return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

        wanted = md5(f"{md5(f'{user}:{REALM}:{password}')}:{NONCE}:{md5(f'{method}:{url}')}")
        return (given.get("username"), given.get("uri"), given.get("response")) == (user, url, wanted)

    def _answer(self, status: int, headers: dict[str, str], *more: str, body: str = "") -> None:
        self.server.answers.append(status)
        lines = [f"RTSP/1.0 {status} x", f"CSeq: {headers.get('cseq', '')}", *more]
        self.wfile.write("\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode())

    def _play(self) -> None:
        for number, start in enumerate(range(0, len(self.server.clip), _PER_PACKET)):
            payload = self.server.clip[start : start + _PER_PACKET]
            rtp = struct.pack("!BBHII", 0x80, 33, number & 0xFFFF, number * 900, 1) + payload
            self.wfile.write(struct.pack("!cBH", b"$", 0, len(rtp)) + rtp)
            time.sleep(0.001)
