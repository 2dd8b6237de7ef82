"""Reaching the gateway through firewalls: its ports, its address outside NAT, IPv6, STUN and TURN."""

import asyncio
import base64
import hashlib
import hmac
import re
import time

import aioice.ice
import pytest
from aiortc.sdp import SessionDescription
from pydantic import ValidationError

from server.gateway.webrtc.turn import issue
from server.settings import IceServer, WebRtc
from tests.server.gateway.scripted_gateway import Gateway, Viewer, gateway, loopback  # noqa: F401
from tests.server.gateway.slow_link import SlowLink
from tests.server.gateway.test_strangers import SDP, Sink, an_offer


async def test_media_comes_from_the_ports_of_the_settings_and_they_are_given_back():
    first = await _free_pair()
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


async def _free_pair() -> int:
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


class OutsideNat(Viewer):
    """Sees 127.0.0.2 only, whose packets a router passes on to 127.0.0.1."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self.router = SlowLink(1e9)

    def to_gateway(self, offer: str) -> str:
        return re.sub(r"a=(candidate|end-of-candidates).*\r\n", "", offer)

    async def from_gateway(self, answer: str) -> str:
        candidates = [c for m in SessionDescription.parse(answer).media for c in m.ice_candidates]
        assert {c.ip for c in candidates} == {"127.0.0.2"}
        port = candidates[0].port
        await self.router.open(("127.0.0.1", port), at=("127.0.0.2", port))
        return answer


async def test_behind_nat_viewers_are_told_the_address_outside():
    webrtc = {"host_addresses": ["127.0.0.1"], "announced_addresses": ["127.0.0.2"]}
    async with gateway(webrtc=webrtc) as served, OutsideNat(served) as viewer:
        await viewer.sees(5)
    viewer.router.close()


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
