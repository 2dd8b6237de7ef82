"""A burst of datagrams by one call: each arrives whole and in order, also where none can be cut."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from aiortc.codecs.h264 import h264_depayload

from server.gateway.webrtc.burst import Bursts
from server.gateway.webrtc.rtp import h264_frame
from tests.server.gateway.hls_media import video

# Linux's; without checksums the kernel cuts nothing up.
_NO_CHECK = {
    socket.AF_INET: (socket.SOL_SOCKET, 11),  # SO_NO_CHECK
    socket.AF_INET6: (socket.IPPROTO_UDP, 101),  # UDP_NO_CHECK6_TX
}


@pytest.fixture(params=["127.0.0.1", "::1"])
def sockets(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as ours,
        socket.socket(family, socket.SOCK_DGRAM) as theirs,
    ):
        for end in (ours, theirs):
            end.bind((request.param, 0))
        ours.setblocking(False)
        theirs.settimeout(10)
        yield ours, theirs


@pytest.mark.parametrize("cuts", [True, False])
async def test_datagrams_of_every_size_arrive_whole_and_in_order(sockets, cuts):
    ours, theirs = sockets
    if not cuts:
        ours.setsockopt(*_NO_CHECK[ours.family], 1)
        if theirs.family == socket.AF_INET6:
            theirs.setsockopt(socket.IPPROTO_UDP, 102, 1)  # UDP_NO_CHECK6_RX
    sizes = [1200] * 5 + [700, 1200, 30, 40, 40, 39] + [900] * 60 + [1, 2]
    datagrams = [bytes([index]) * size for index, size in enumerate(sizes)]
    calls = 0

    class Counted(asyncio.DatagramTransport):
        def sendto(self, data, addr=None):
            nonlocal calls
            calls += 1
            ours.sendto(data, addr)

    bursts = Bursts(ours, Counted())
    for _ in range(2):
        calls = 0
        bursts.send(datagrams, theirs.getsockname()[:2])
        assert [theirs.recv(2000) for _ in datagrams] == datagrams
    assert calls == (1 if cuts else len(datagrams)), "only what stands alone goes by itself"


def test_what_the_socket_has_no_room_for_the_transport_keeps():
    class Full(socket.socket):
        def sendmsg(self, *args):
            raise BlockingIOError

    kept = []

    class Keeping(asyncio.DatagramTransport):
        def sendto(self, data, addr=None):
            kept.append(data)

    datagrams = [bytes(1200)] * 8
    with Full(socket.AF_INET, socket.SOCK_DGRAM) as full:
        Bursts(full, Keeping()).send(datagrams, ("127.0.0.1", 9))
    assert kept == datagrams


@pytest.mark.parametrize("size", [1301, 1302, 2600, 5000, 100_003])
def test_fragments_are_of_one_size_but_the_last_and_make_the_picture_again(size):
    unit = b"\x65" + bytes(1 + index % 250 for index in range(size - 1))
    payloads = h264_frame(video(0, b"\0\0\0\1" + unit, True)).payloads
    sizes = [len(payload) for payload in payloads]
    assert len(set(sizes[:-1])) == 1
    assert sizes[-1] <= sizes[0] <= 1300
    assert b"".join(map(h264_depayload, payloads)) == b"\0\0\0\1" + unit
    assert [payload[1] >> 6 for payload in payloads] == [2, *[0] * (len(payloads) - 2), 1], "start and end"
