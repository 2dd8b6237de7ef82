"""Where viewers can reach us: sockets, addresses outside NAT, STUN and TURN (RFC 8445)."""

import asyncio
import errno
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from aioice import Candidate, Connection, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol, relayed_candidate, server_reflexive_candidate
from aioice.turn import UDP_SOCKET_BUFFER_SIZE
from aiortc import RTCIceGatherer, RTCIceServer
from aiortc.rtcicetransport import RTCIceCandidate, connection_kwargs

from server.gateway.errors import LimitReached
from server.gateway.webrtc.burst import Bursts
from server.gateway.webrtc.certificate import Certificates
from server.gateway.webrtc.shared_port import SharedPorts
from server.gateway.webrtc.turn import issue
from server.settings import IceServer, WebRtc
from server.wire.logs import get_logger

log = get_logger(__name__)

# The answer carries every candidate of ours, so it waits for the STUN and TURN servers: this long, and for
# one that was silent not again before this time is over.
SERVER_PATIENCE_S = 1.0
SERVER_FORGIVEN_S = 60.0
_COMPONENT = 1  # RTP and RTCP share it
WAITING_DATAGRAMS = 64  # of a viewer who is yet to connect: a DTLS flight has fewer
_LARGEST_BYTES = 1500  # libsrtp's binding has room for no more, and raises what ends a session


class Network:
    """How the gateway is reached, by the settings and by what its STUN and TURN servers have been like."""

    def __init__(self, settings: WebRtc) -> None:
        self.certificates = Certificates()
        self.addresses = list(settings.host_addresses)
        self.ports = settings.udp_ports
        one = self.ports is not None and self.ports[0] == self.ports[1]
        self.shared = SharedPorts() if one else None
        self._announced = settings.announced_addresses
        self._servers = settings.ice_servers
        self._silent_until_s: dict[str, float] = {}

    def close(self) -> None:
        """When no viewer is left."""
        if self.shared is not None:
            self.shared.close()

    def gatherer(self, who: str, *, max_candidates: int) -> "Gatherer":
        """For one viewer; `who` names it to the TURN server."""
        return Gatherer(self, issue(self._servers, who), max_candidates=max_candidates)

    def announce(self, candidates: Iterable[RTCIceCandidate]) -> Iterator[RTCIceCandidate]:
        """The candidates as viewers are told them: behind NAT, with the addresses outside of it."""
        for candidate in candidates:
            address = ip_address(candidate.ip)
            outside = [a for a in self._announced if ip_address(a).version == address.version]
            if candidate.type == "host" and address.is_private and outside:
                yield from (replace(candidate, ip=a) for a in outside)
            else:
                yield candidate

    def answers(self, server: str) -> bool:
        """Whether to ask that server now."""
        return time.monotonic() >= self._silent_until_s.get(server, 0.0)

    def was_silent(self, server: str) -> None:
        self._silent_until_s[server] = time.monotonic() + SERVER_FORGIVEN_S
        log.warning("ICE server silent", server=server, retry_s=SERVER_FORGIVEN_S)


class Gatherer(RTCIceGatherer):
    """Our own addresses, for one viewer."""

    def __init__(self, network: Network, servers: Sequence[IceServer], *, max_candidates: int) -> None:
        super().__init__(iceServers=[])
        self._connection: _Connection = _Connection(
            network,
            max_candidates=max_candidates,
            **connection_kwargs([_rtc_ice_server(server) for server in servers]),
        )

    def send(self, datagrams: Sequence[bytes]) -> None:
        """To the viewer, at once; raises ConnectionError where there is no way to it."""
        self._connection.send_at_once(datagrams)

    def hear(self, on_media: Callable[[bytes], None]) -> None:
        """What of the viewer's datagrams is SRTP or SRTCP goes there (RFC 7983), and not into its queue."""
        self._connection.on_media = on_media

    @property
    def at_loopback(self) -> bool:
        return any(ip_address(c.ip).is_loopback for c in self.getLocalCandidates())


def _rtc_ice_server(server: IceServer) -> RTCIceServer:
    return RTCIceServer(urls=list(server.urls), username=server.username, credential=server.credential)


class _Connection(Connection):
    """aioice's, at addresses and ports of our choice (it never offers 127.0.0.1), with less patience."""

    def __init__(self, network: Network, *, max_candidates: int, **options: Any) -> None:
        super().__init__(ice_controlling=False, local_username=secrets.token_hex(8), **options)
        self.on_media: Callable[[bytes], None] | None = None
        self._network = network
        self._max_remote = 2 * max_candidates  # those we are told, and those we learn
        self._bursts: dict[StunProtocol, Bursts] = {}  # none where a server relays

    async def get_component_candidates(
        self,
        component: int,
        addresses: list[str],
        timeout: int = 5,  # noqa: ASYNC109
    ) -> list[Candidate]:
        for address in self._network.addresses or addresses:
            await self._bind(component, address)
        own = list(self._protocols)
        return [protocol.local_candidate for protocol in own] + await self._ask_servers(component, own)

    async def _bind(self, component: int, address: str) -> None:
        """A socket at that address; none where this machine hasn't got it."""
        try:
            protocol, bound = await self._protocol_at(address)
        except OSError as exc:
            log.warning("no UDP socket", address=address, reason=str(exc))
            return
        protocol.local_candidate = Candidate(
            foundation=candidate_foundation("host", "udp", address),
            component=component,
            transport="udp",
            priority=candidate_priority(component, "host"),
            host=address,
            port=protocol.transport.get_extra_info("sockname")[1],
            type="host",
        )
        self._protocols.append(protocol)
        self._bursts[protocol] = Bursts(bound, protocol.transport)

    async def _protocol_at(self, address: str) -> tuple[StunProtocol, socket.socket]:
        def bind() -> socket.socket:
            return _bound_socket(address, self._network.ports)

        if self._network.shared is not None:
            return await self._network.shared.join(self, address, bind, max_addresses=self._max_remote)
        loop = asyncio.get_running_loop()
        bound = bind()
        _, protocol = await loop.create_datagram_endpoint(lambda: StunProtocol(self), sock=bound)
        return protocol, bound

    def send_at_once(self, datagrams: Sequence[bytes]) -> None:
        pair = self._nominated.get(_COMPONENT)
        if pair is None:
            raise ConnectionError("no way to the viewer")
        if (bursts := self._bursts.get(pair.protocol)) is not None:
            bursts.send(datagrams, pair.remote_addr)
            return
        for datagram in datagrams:
            pair.protocol.transport.sendto(datagram, pair.remote_addr)

    async def _ask_servers(self, component: int, own: Sequence[StunProtocol]) -> list[Candidate]:
        """Candidates of the STUN and TURN servers, of those that answer in time."""
        tasks: dict[asyncio.Task[tuple[Candidate, StunProtocol | None]], str] = {}
        if self.stun_server and self._network.answers("STUN"):
            for protocol in own:
                if ip_address(protocol.local_candidate.host).version == 4:
                    ask = server_reflexive_candidate(protocol, self.stun_server)
                    tasks[asyncio.create_task(ask)] = "STUN"
        if self.turn_server and self._network.answers("TURN"):
            allocate = relayed_candidate(
                component=component,
                hide_related_address=False,
                protocol_factory=lambda: StunProtocol(self),
                turn_server=self.turn_server,
                turn_username=self.turn_username,
                turn_password=self.turn_password,
                turn_ssl=self.turn_ssl,
                turn_transport=self.turn_transport,
            )
            tasks[asyncio.create_task(allocate)] = "TURN"
        if not tasks:
            return []
        done, silent = await asyncio.wait(tasks, timeout=SERVER_PATIENCE_S)
        for task in silent:
            task.cancel()
        if silent:
            await asyncio.wait(silent)
        for server in {tasks[task] for task in silent}:
            self._network.was_silent(server)
        found = []
        for task in done:
            if (error := task.exception()) is not None:
                log.warning("ICE server failed", server=tasks[task], reason=str(error))
                continue
            candidate, relay = task.result()
            found.append(candidate)
            if relay is not None:
                self._protocols.append(relay)
        return found

    def data_received(self, data: bytes, component: int) -> None:
        if len(data) > _LARGEST_BYTES:
            return
        if self.on_media is not None and data and 127 < data[0] < 192:
            self.on_media(data)
            return
        # Anybody's. Until DTLS reads there is no other bound to what is kept; an empty one would end DTLS.
        if data and self._queue.qsize() < WAITING_DATAGRAMS:
            super().data_received(data, component)

    def check_incoming(self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        # Each check from a new address is answered by checks of ours: seven packets for one, to an address
        # that may be forged.
        known = any((c._network_host, c.port) == addr for c in self._remote_candidates)
        if known or len(self._remote_candidates) < self._max_remote:
            super().check_incoming(message, addr, protocol)


def _bound_socket(address: str, ports: tuple[int, int] | None) -> socket.socket:
    """Raises LimitReached where every port is taken, OSError where the address isn't this machine's."""
    first, last = ports or (0, 0)
    count = last - first + 1
    start = random.randrange(count)
    for step in range(count):
        bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            bound.bind((address, first + (start + step) % count))
        except OSError as exc:
            bound.close()
            if exc.errno != errno.EADDRINUSE:
                raise
            continue
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_SOCKET_BUFFER_SIZE)
        return bound
    raise LimitReached(f"every port at {address} is taken; webrtc.udp_ports={[first, last]}")
