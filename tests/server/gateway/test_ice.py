"""Reaching the gateway through firewalls: its ports, its address outside NAT, IPv6, STUN and TURN."""

import asyncio
import base64
import hashlib
import hmac
import re
import socket
import time

import aioice.ice
import pytest
from aioice import stun
from aiortc.sdp import SessionDescription
from pydantic import ValidationError

from loadtest.relay import Relay
from server.gateway.webrtc.shared_port import SharedPorts
from server.gateway.webrtc.turn import issue
from server.settings import IceServer, WebRtc
from tests.server.gateway.scripted_gateway import Gateway, Viewer, gateway, loopback, until  # noqa: F401
from tests.server.gateway.test_strangers import SDP, Sink, an_offer


async def test_media_comes_from_the_ports_of_the_settings_and_they_are_given_back():
    first = await free_pair()
    webrtc = {"host_addresses": ["127.0.0.1"], "udp_ports": [first, first + 1]}
    async with gateway(webrtc=webrtc) as served, Viewer(served) as one, Viewer(served) as two:
        await one.sees(3)
        await two.sees(3)
        assert {_port(one), _port(two)} == {first, first + 1}
        refused = await served.http.post("/whep/demo", content=await an_offer([]), headers=SDP)
        assert refused.status_code == 503
        assert f"webrtc.udp_ports=[{first}, {first + 1}]" in refused.json()["detail"]
        assert (await served.stream())["viewers"]["whep"] == 2
        await served.http.delete(one.location)
        async with Viewer(served) as three:
            await three.sees(3)
            assert _port(three) == _port(one)


def _port(viewer: Viewer) -> int:
    (port,) = {c.port for m in SessionDescription.parse(viewer.response.text).media for c in m.ice_candidates}
    return port


async def free_pair() -> int:
    loop = asyncio.get_running_loop()
    while True:
        probe, _ = await loop.create_datagram_endpoint(Sink, local_addr=("127.0.0.1", 0))
        port = probe.get_extra_info("sockname")[1]
        try:
            after, _ = await loop.create_datagram_endpoint(Sink, local_addr=("127.0.0.1", port + 1))
        except OSError:
            continue
        finally:
            probe.close()
        after.close()
        await asyncio.sleep(0)
        return port


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_all_viewers_share_one_port(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: [address])
    port = await free_pair()
    webrtc = {"host_addresses": [address], "udp_ports": [port, port]}
    async with gateway(webrtc=webrtc) as served, Viewer(served) as one, Viewer(served) as two:
        await one.sees(3)
        await two.sees(3)
        assert _port(one) == _port(two) == port
        await served.http.delete(one.location)
        async with Viewer(served) as three:
            await three.sees(5)
            await two.sees(5)


async def test_a_stranger_at_the_shared_port_gets_no_answer_and_cuts_nobody_off():
    port = await free_pair()
    webrtc = {"host_addresses": ["127.0.0.1"], "udp_ports": [port, port]}
    loop = asyncio.get_running_loop()
    async with gateway(webrtc=webrtc) as served, Viewer(served) as viewer:
        await viewer.sees(3)
        transport, stranger = await loop.create_datagram_endpoint(Sink, remote_addr=("127.0.0.1", port))
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        request.attributes["USERNAME"] = "unknown:me"
        request.add_message_integrity(b"x" * 22)
        for datagram in (bytes(request), b"", b"\0\1", bytes(request)[:-3], b"\x16" * 40, b"\x80" * 40):
            transport.sendto(datagram)
        await viewer.sees(8)
        assert stranger.packets == 0
        transport.close()


async def test_an_address_goes_to_who_answers_there_and_not_to_who_claims_it():
    """A viewer that starts anew behind the same port of a NAT gets it; who forges a source does not."""
    ports = SharedPorts()
    loop = asyncio.get_running_loop()
    connections = [aioice.Connection(ice_controlling=False) for _ in range(2)]
    heard: list[list[bytes]] = [[], []]
    for connection, mine in zip(connections, heard, strict=True):
        connection.data_received = lambda data, component, mine=mine: mine.append(data)
        connection.request_received = lambda message, addr, protocol: None

    def bind() -> socket.socket:
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.setblocking(False)
        bound.bind(("127.0.0.1", 0))
        return bound

    shares = [(await ports.join(c, "127.0.0.1", bind, max_addresses=4))[0] for c in connections]
    for share in shares:
        share.local_candidate = aioice.Candidate("1", 1, "udp", 1, "127.0.0.1", 1, "host")
    here = shares[0].transport.get_extra_info("sockname")
    received: list[bytes] = []

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            received.append(data)

    client, _ = await loop.create_datagram_endpoint(Client, remote_addr=here)
    client_at = client.get_extra_info("sockname")

    def check(of: aioice.Connection) -> bytes:
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        request.attributes["USERNAME"] = f"{of.local_username}:me"
        request.add_message_integrity(of.local_password.encode())
        return bytes(request)

    client.sendto(check(connections[0]))
    client.sendto(b"\x16first")
    await until(lambda: heard[0] == [b"\x16first"], "the first viewer's data")
    client.sendto(check(connections[1]))
    client.sendto(b"\x16claimed")
    await until(lambda: heard[0][1:] == [b"\x16claimed"], "data after a check that may be forged")
    ours = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    asking = asyncio.create_task(shares[1].request(ours, client_at))
    await until(lambda: received, "our check")
    client.sendto(
        bytes(
            stun.Message(
                message_method=stun.Method.BINDING,
                message_class=stun.Class.RESPONSE,
                transaction_id=received[-1][8:20],
            )
        )
    )
    await asking
    client.sendto(b"\x16second")
    await until(lambda: heard[1] == [b"\x16second"], "the second viewer's data")
    for share in shares:
        await share.close()
    ports.close()
    client.close()


class OutsideNat(Viewer):
    """Sees 127.0.0.2 only, whose packets a router passes on to 127.0.0.1."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self.router: Relay | None = None

    def to_gateway(self, offer: str) -> str:
        return re.sub(r"a=(candidate|end-of-candidates).*\r\n", "", offer)

    async def from_gateway(self, answer: str) -> str:
        candidates = [c for m in SessionDescription.parse(answer).media for c in m.ice_candidates]
        assert {c.ip for c in candidates} == {"127.0.0.2"}
        port = candidates[0].port
        self.router = Relay(at=("127.0.0.2", port)).__enter__()
        self.router.connect(("127.0.0.1", port))
        return answer

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        if self.router is not None:
            self.router.__exit__(*exc)


async def test_behind_nat_viewers_are_told_the_address_outside():
    webrtc = {"host_addresses": ["127.0.0.1"], "announced_addresses": ["127.0.0.2"]}
    async with gateway(webrtc=webrtc) as served, OutsideNat(served) as viewer:
        await viewer.sees(5)


async def test_a_viewer_may_have_ipv6_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["::1"])
    async with (
        gateway(
            webrtc={"host_addresses": ["127.0.0.1", "::1"], "announced_addresses": ["127.0.0.2"]}
        ) as served,
        Viewer(served) as viewer,
    ):
        media = SessionDescription.parse(viewer.response.text).media
        assert {c.ip for c in media[0].ice_candidates} == {"127.0.0.2", "::1"}
        await viewer.sees(5)


async def test_a_silent_stun_server_delays_one_viewer_a_little_and_no_other():
    loop = asyncio.get_running_loop()
    transport, silent = await loop.create_datagram_endpoint(Sink, local_addr=("127.0.0.1", 0))
    url = f"stun:127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    webrtc = {"host_addresses": ["127.0.0.1"], "ice_servers": [{"urls": [url]}]}
    async with gateway(webrtc=webrtc) as served:
        offer, started_s = await an_offer([]), time.monotonic()
        assert (await served.http.post("/whep/demo", content=offer, headers=SDP)).status_code == 201
        assert time.monotonic() - started_s < 4.0  # it was 5 s
        asked = silent.packets
        assert asked > 0
        async with Viewer(served) as viewer:
            await viewer.sees(3)
        assert silent.packets == asked, "the next is not kept waiting for it"
    transport.close()


def test_turn_credentials_are_what_coturn_computes():
    shared = IceServer(urls=("turn:turn.example.com",), secret="north")
    own = IceServer(urls=("turn:other.example.com",), username="u", credential="p")
    before_s = time.time()
    issued, untouched = issue([shared, own], "ab12")
    assert untouched == own
    expiry, _, who = issued.username.partition(":")
    assert who == "ab12"
    assert 3600 < int(expiry) - before_s <= 86_401
    digest = hmac.new(b"north", issued.username.encode(), hashlib.sha1).digest()
    assert issued.credential == base64.b64encode(digest).decode()
    assert issued.secret is None


async def test_each_viewer_is_given_turn_credentials_of_its_own():
    turn = {"urls": ["turn:turn.example.com:3478"], "secret": "north"}
    async with gateway(webrtc={"host_addresses": ["127.0.0.1"], "ice_servers": [turn]}) as served:
        links = [(await served.http.options("/whep/demo")).headers["Link"] for _ in range(2)]
    names = [re.search(r'username="(\d+:\w+)"; credential="[\w+/]+="', link)[1] for link in links]
    assert names[0] != names[1]
    assert "north" not in links[0]


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"udp_ports": [5000, 4000]}, "first and the last"),
        ({"udp_ports": [0, 10]}, "first and the last"),
        ({"announced_addresses": ["example.com"]}, "example.com"),
        ({"ice_servers": [{"urls": ["turn:a"], "secret": "x", "username": "u"}]}, "must be left out"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tables, words):
    with pytest.raises(ValidationError, match=words):
        WebRtc.model_validate(tables)
