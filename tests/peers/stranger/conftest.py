"""A service for the strangers of a file, and who watches it, as both cost CPU for as long as they run."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.peers.service import running
from tests.peers.stranger.scene import ADMIN, KEY, SETTINGS, STRANGER, STREAM, TOKENS, VIEWER, Scene
from tests.peers.watcher import SOURCE, watching
from tests.ports import free_port


@pytest.fixture(scope="module")
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A file with DOORS wants a stream that waits for publishers by each of these protocols."""
    folder = tmp_path_factory.mktemp("stranger")
    settings = SETTINGS + "".join(
        f"[[auth.tokens]]\nname = '{token}'\nsha256 = '{hashlib.sha256(token.encode()).hexdigest()}'\n"
        f"scopes = ['{scope}']\n"
        for token, scope in TOKENS
    )
    doors = {protocol: free_port() for protocol in getattr(request.module, "DOORS", ())}
    settings += "".join(
        f"[[streams]]\nid = '{protocol}'\nsource = '{protocol}://127.0.0.1:{port}/live/{KEY}?listen=1'\n"
        for protocol, port in doors.items()
    )
    transport = httpx.HTTPTransport(local_address=STRANGER, limits=httpx.Limits(max_connections=50))
    with ExitStack() as opened:
        service = opened.enter_context(running(folder, settings, ADMIN, base=""))
        opened.enter_context(service.stream("demo", SOURCE, **STREAM))
        service.wait_for("demo", "running")
        watcher = opened.enter_context(watching(service.url, "demo", VIEWER, folder))
        stranger = opened.enter_context(httpx.Client(base_url=service.url, transport=transport, timeout=30))
        yield Scene(service=service, watcher=watcher, stranger=stranger, doors=doors)
