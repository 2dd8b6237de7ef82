"""Chromium that may use nothing but a relay plays through coturn, with credentials made for its session."""

import subprocess
from collections.abc import Callable, Iterator

import pytest
from aiortc import RTCPeerConnection
from aiortc.sdp import SessionDescription

from tests.peers.browser import chromium
from tests.peers.service import Service, running, until
from tests.peers.stun import answers
from tests.ports import free_port

SOURCE, SIZE = "synthetic:?size=160x90&fps=12", "320 × 180"
SECRET = "north"
RELAY_ONLY = """
    const Real = RTCPeerConnection;
    const relayed = (options) => ({ ...options, iceTransportPolicy: "relay" });
    window.RTCPeerConnection = class extends Real {
        constructor(options) { super(relayed(options)); window.pc = this; }
        setConfiguration(options) { super.setConfiguration(relayed(options)); }
    };
"""
PAIR = """
    const done = arguments[0];
    pc.getStats().then((stats) => {
        const pair = [...stats.values()].find((e) => e.type === "candidate-pair" && e.nominated);
        done(stats.get(pair.localCandidateId).candidateType);
    });
"""


@pytest.fixture(scope="module")
def turn(program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that knows a coturn by its secret."""
    server, port = program("turnserver", "coturn"), free_port()
    folder = tmp_path_factory.mktemp("turn")
    own = "--listening-ip 127.0.0.1 --relay-ip 127.0.0.1 --allow-loopback-peers --no-tls --no-dtls --no-cli"
    command = [
        *(server, "-n", *own.split(), "--listening-port", str(port), "--realm", "local"),
        *("--use-auth-secret", "--static-auth-secret", SECRET, "--log-file", "stdout"),
        *("--pidfile", str(folder / "pid"), "--userdb", str(folder / "users")),
    ]
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    more = f'''
[[webrtc.ice_servers]]
urls = ["turn:127.0.0.1:{port}?transport=udp"]
secret = "{SECRET}"
'''
    try:
        until(lambda: answers(port), "coturn answers")
        with running(folder, more) as service:
            yield service
    finally:
        process.terminate()
        process.wait()


def test_a_viewer_plays_through_the_relay(turn: Service, program: Callable[[str, str], str]) -> None:
    executable, driver = program("chromium", "chromium"), program("chromedriver", "chromium-driver")
    with turn.stream("relayed", SOURCE), chromium(executable, driver, turn.url) as page:
        turn.wait_for("relayed", "running")
        page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": RELAY_ONLY})
        page.open("relayed")
        page.plays(SIZE)
        assert page.fact("player", "over") == "WebRTC"
        assert page.driver.execute_async_script(PAIR) == "relay"


async def test_the_service_offers_a_relayed_address_of_its_own(turn: Service) -> None:
    peer = RTCPeerConnection()
    peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    with turn.stream("own", SOURCE):
        answer = turn.http.post(
            "/whep/own", content=peer.localDescription.sdp, headers={"content-type": "application/sdp"}
        )
        assert answer.status_code == 201, answer.text
        turn.http.delete(answer.headers["location"])
    await peer.close()
    (media,) = SessionDescription.parse(answer.text).media
    assert {c.type for c in media.ice_candidates} == {"host", "relay"}
