"""What a stranger may cause by WebRTC: few packets elsewhere, few seats, no wait for others."""

import asyncio
import re
import resource
import socket
import time
from pathlib import Path

import pytest
from aioice import stun
from aiortc.rtcicetransport import RTCIceCandidate

from server.gateway.webrtc.candidates import RemoteCandidates
from server.settings import Limits
from tests.server.gateway.scripted_gateway import Viewer, gateway, loopback, until  # noqa: F401

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


class Sink(asyncio.DatagramProtocol):
    """Stands for a thousand machines of 127.0.0.0/8 that never asked for anything."""

    def __init__(self) -> None:
        self.packets = 0

    def datagram_received(self, data, addr) -> None:
        self.packets += 1


async def an_offer(candidates: list[str]) -> str:
    """An aiortc viewer's, with these candidates for its own."""
    viewer = Viewer(None)
    offer = re.sub(r"a=(candidate|end-of-candidates).*\r\n", "", await viewer.offer())
    await viewer.pc.close()
    return offer.replace("a=ice-ufrag", "\r\n".join([*candidates, "a=ice-ufrag"]), 1)


def candidates(count: int, port: int, first: int = 1) -> list[str]:
    numbers = range(first, first + count)
    return [f"a=candidate:{i} 1 udp 99 127.0.{i >> 8}.{i & 255} {port} typ host" for i in numbers]


async def test_a_thousand_candidates_cause_few_packets():
    loop = asyncio.get_running_loop()
    transport, sink = await loop.create_datagram_endpoint(Sink, local_addr=("0.0.0.0", 0))
    port = transport.get_extra_info("sockname")[1]
    async with gateway(limits={"ice_timeout_s": 2.0}) as served:
        response = await served.http.post(
            "/whep/demo", content=await an_offer(candidates(1000, port)), headers=SDP
        )
        assert response.status_code == 201, response.text
        await served.http.patch(
            response.headers["Location"], content="\r\n".join(candidates(900, port)), headers=FRAGMENT
        )

        async def gone() -> bool:
            return (await served.stream())["viewers"]["whep"] == 0

        await until(gone, "the viewer that never came is given up")
        # In 2 s each is tried at 0, 0.5 and 1.5 s.
        assert 0 < sink.packets <= 3 * Limits().max_candidates
    transport.close()


async def test_fragments_full_of_candidates_keep_nobody_waiting():
    async with gateway() as served:
        offer = await served.http.post("/whep/demo", content=await an_offer([]), headers=SDP)
        fragments = ["\r\n".join(candidates(1000, 9, 1 + 1000 * i)) for i in range(5)]
        location, slowest_s, done = offer.headers["Location"], 0.0, False

        async def trickle() -> None:
            nonlocal done
            await asyncio.gather(
                *(served.http.patch(location, content=f, headers=FRAGMENT) for f in fragments)
            )
            done = True

        task = asyncio.create_task(trickle())
        while not done:
            started_s = time.monotonic()
            assert (await served.http.get("/healthz")).status_code == 200
            slowest_s = max(slowest_s, time.monotonic() - started_s)
        await task
        assert slowest_s < 2.0  # it was 13 s


@pytest.mark.parametrize(
    "changes",
    [
        {"ip": "224.0.0.1"},
        {"ip": "0.0.0.0"},
        {"ip": "255.255.255.255"},
        {"ip": "169.254.169.254"},
        {"ip": "ff02::1"},
        {"ip": "fe80::1"},
        {"ip": "127.0.0.1"},
        {"ip": "somebody.local"},
        {"port": 0},
        {"component": 2},
        {"protocol": "tcp"},
    ],
)
def test_addresses_that_are_nobodys_are_passed_over(changes):
    usable = {
        "component": 1, "foundation": "1", "ip": "198.51.100.7", "port": 5000,
        "priority": 1, "protocol": "UDP", "type": "host",
    }  # fmt: skip
    assert RemoteCandidates(5).choose([RTCIceCandidate(**usable)], loopback=False)
    assert not RemoteCandidates(5).choose([RTCIceCandidate(**usable | changes)], loopback=False)


async def test_checks_from_many_addresses_are_answered_but_not_returned():
    """Who holds a session's password may forge where its checks come from."""
    async with gateway(limits={"max_candidates": 2}) as served:
        offer = await an_offer([])
        answer = (await served.http.post("/whep/demo", content=offer, headers=SDP)).text
        (ours,) = re.findall(r"a=ice-ufrag:(.*)\r\n", answer)[:1]
        (password,) = re.findall(r"a=ice-pwd:(.*)\r\n", answer)[:1]
        (theirs,) = re.findall(r"a=ice-ufrag:(.*)\r\n", offer)[:1]
        port = int(re.search(r"127\.0\.0\.1 (\d+) typ host", answer)[1])
        loop = asyncio.get_running_loop()
        places = []
        for _ in range(20):
            transport, place = await loop.create_datagram_endpoint(Checker, remote_addr=("127.0.0.1", port))
            check = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
            check.attributes |= {"USERNAME": f"{ours}:{theirs}", "PRIORITY": 1, "ICE-CONTROLLING": 1}
            check.add_message_integrity(password.encode())
            transport.sendto(bytes(check))
            places.append((transport, place))
        await until(lambda: all(place.answered for _, place in places), "each check is answered")
        await until(lambda: sum(place.checked for _, place in places) >= 4, "the first are checked in turn")
        assert sum(place.checked for _, place in places) == 4
        for transport, _ in places:
            transport.close()


class Checker(asyncio.DatagramProtocol):
    answered = checked = False

    def datagram_received(self, data, addr) -> None:
        kind = stun.parse_message(data).message_class
        self.answered |= kind == stun.Class.RESPONSE
        self.checked |= kind == stun.Class.REQUEST


async def test_an_empty_datagram_ends_no_viewer():
    async with gateway() as served, Viewer(served) as viewer:
        await viewer.sees(3)
        port = int(re.search(r"127\.0\.0\.1 (\d+) typ host", viewer.response.text)[1])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for datagram in (b"", b"\x16", b"\x80", b"\x80\xc8", bytes(1400)):
                stranger.sendto(datagram, ("127.0.0.1", port))
                await viewer.sees(len(viewer.frames[0]) + 5)


async def test_datagrams_before_the_viewer_connects_are_not_kept():
    async with gateway() as served:
        answer = await served.http.post("/whep/demo", content=await an_offer([]), headers=SDP)
        port = int(re.search(r"127\.0\.0\.1 (\d+) typ host", answer.text)[1])
        before = held_mb()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(60_000):
                stranger.sendto(bytes(1400), ("127.0.0.1", port))
                await asyncio.sleep(0)
        assert held_mb() - before < 20  # it was 80


def held_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


async def test_one_address_may_not_hold_every_seat_without_coming():
    async with gateway(limits={"max_pending_per_address": 3, "ice_timeout_s": 1.0}) as served:
        offer = await an_offer([])
        answers = [await served.http.post("/whep/demo", content=offer, headers=SDP) for _ in range(10)]
        assert [a.status_code for a in answers] == [201] * 3 + [429] * 7
        assert "max_pending_per_address=3" in answers[-1].json()["detail"]
        assert answers[-1].headers["Retry-After"]
        elsewhere = await served.http.post(
            "/whep/demo", content=offer, headers=SDP | {"X-Forwarded-For": "198.51.100.7"}
        )
        assert elsewhere.status_code == 201, "a viewer from elsewhere gets a seat"

        async def free() -> bool:
            return (await served.stream())["viewers"]["whep"] == 0

        await until(free, "the seats are free again")
        async with Viewer(served) as viewer:
            await viewer.sees(3)


async def test_one_address_has_a_share_of_the_seats():
    async with (
        gateway(limits={"max_viewers_per_address": 2}) as served,
        Viewer(served) as first,
        Viewer(served) as second,
    ):
        await first.sees(1)
        await second.sees(1)
        refused = await served.http.post("/whep/demo", content=await an_offer([]), headers=SDP)
        assert refused.status_code == 429
        assert "max_viewers_per_address=2" in refused.json()["detail"]
        for address, status in (("2001:db8::1", 201), ("2001:db8::2", 201), ("2001:db8::3", 429)):
            headers = SDP | {"X-Forwarded-For": address}
            answer = await served.http.post("/whep/demo", content=await an_offer([]), headers=headers)
            assert answer.status_code == status, "a /64 is one address"
