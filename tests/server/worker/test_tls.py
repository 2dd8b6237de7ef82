"""Sources behind TLS and a login: a certificate that isn't right is refused, and one that is plays."""

import datetime
import http.server
import ssl
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.wire.source_policy import SourcePolicy
from tests.server.clips import write_clip
from tests.server.worker.rtsp_server import RtspServer
from tests.server.worker.test_policy import count_pictures, opened, read_all, serving

POLICY = SourcePolicy(schemes=("rtsp", "rtsps", "https"), hosts=("127.0.0.1",), folders=(), listen_ports=())
FRAMES = 50


class Authority:
    """A certificate authority, and what it signs."""

    def __init__(self, folder: Path, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._folder = folder / name
        self._folder.mkdir()
        self.file = self._folder / "ca.pem"
        self.file.write_bytes(_pem(self._sign(self._name, self._key, None)))

    def context(self, address: str = "127.0.0.1", days: int = 1) -> ssl.SSLContext:
        """A server's, with a certificate for that address, valid for so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "camera")])
        own, secret = self._folder / "own.pem", self._folder / "own.key"
        own.write_bytes(_pem(self._sign(subject, key, address, days)))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own, secret)
        return context

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, address: str | None, days: int = 1
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        extension: x509.ExtensionType = x509.BasicConstraints(ca=True, path_length=None)
        if address is not None:
            extension = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=3))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(extension, critical=address is None)
            .sign(self._key, hashes.SHA256())
        )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "a.ts", frames=FRAMES)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The one that this machine trusts."""
    authority = Authority(tmp_path, "trusted")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


@pytest.fixture
def serve(clip: Path) -> Iterator[Callable[[str, ssl.SSLContext], str]]:
    running = []

    class Web(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(clip.read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    class WebServer(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass

    def serve(scheme: str, context: ssl.SSLContext) -> str:
        server = RtspServer(clip) if scheme == "rtsps" else WebServer(("127.0.0.1", 0), Web)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        running.append(serving(server))
        return f"{scheme}://127.0.0.1:{running[-1].__enter__()}/a.ts"

    yield serve
    for context in running:
        context.__exit__(None, None, None)


@pytest.mark.parametrize("scheme", ["https", "rtsps"])
def test_a_certificate_of_a_trusted_authority_plays(authority, serve, scheme):
    assert count_pictures(opened(serve(scheme, authority.context()), POLICY), 20) == 20


@pytest.mark.parametrize("scheme", ["https", "rtsps"])
@pytest.mark.parametrize("what", ["unknown authority", "other address", "expired"])
def test_any_other_is_refused(authority, serve, tmp_path, scheme, what):
    context = {
        "unknown authority": lambda: Authority(tmp_path, "stranger").context(),
        "other address": lambda: authority.context("192.0.2.1"),
        "expired": lambda: authority.context(days=-1),
    }[what]()
    reason = read_all(opened(serve(scheme, context), POLICY))
    assert "certificate verify failed" in reason.replace("_", " ").lower(), reason


def test_rtsp_logs_in_by_digest_through_the_relay(clip):
    server = RtspServer(clip, ("user", "p@ss"))
    with serving(server) as port:
        assert count_pictures(opened(f"rtsp://user:p%40ss@127.0.0.1:{port}/a", POLICY), 20) == 20
    assert 401 in server.answers


@pytest.mark.parametrize("login", ["", "user:wrong@"])
def test_rtsp_with_a_wrong_login_says_so_without_it(clip, login):
    with serving(RtspServer(clip, ("user", "p@ss"))) as port:
        reason = read_all(opened(f"rtsp://{login}127.0.0.1:{port}/a", POLICY))
    assert "401" in reason
    assert "wrong" not in reason
