"""Several datagrams to one address by one system call, which the kernel cuts up (UDP_SEGMENT of Linux)."""

import asyncio
import errno
import socket
import struct
from collections.abc import Iterator, Sequence

_SOL_UDP, _UDP_SEGMENT = 17, 103  # Python has no names for them
_MOST = 40  # datagrams of 1,500 bytes fit into the 64 KB of one call
# By the kernel, the device, or the way to that viewer, whose MTU may be less than a datagram.
_CANT = (errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.EOPNOTSUPP)

Address = tuple[str, int]


class Bursts:
    """To one viewer, from a socket that `transport` sends from as well."""

    def __init__(self, bound: socket.socket, transport: asyncio.DatagramTransport) -> None:
        self._socket = bound
        self._transport = transport
        self._cuts = _kernel_cuts(bound)

    def send(self, datagrams: Sequence[bytes], to: Address) -> None:
        """Never waits: what the socket has no room for, the transport keeps."""
        if len(datagrams) == 1:
            self._transport.sendto(datagrams[0], to)
            return
        for run in _runs(datagrams):
            if len(run) == 1 or not self._sent_at_once(run, to):
                for datagram in run:
                    self._transport.sendto(datagram, to)

    def _sent_at_once(self, run: Sequence[bytes], to: Address) -> bool:
        if not self._cuts:
            return False
        try:
            self._socket.sendmsg(run, [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", len(run[0])))], 0, to)
        except OSError as exc:
            if exc.errno in _CANT:
                self._cuts = False
            return False
        return True


def _kernel_cuts(bound: socket.socket) -> bool:
    # Without this question, a kernel that doesn't know the option sends all of it as one datagram.
    try:
        bound.getsockopt(_SOL_UDP, _UDP_SEGMENT)
    except OSError:
        return False
    return True


def _runs(datagrams: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Of one size each; the last one of a run may be smaller."""
    sizes = [len(datagram) for datagram in datagrams]
    start, size = 0, sizes[0] if sizes else 0
    for end, after in enumerate(sizes[1:], 1):
        if after > size or sizes[end - 1] < size or end - start == _MOST:
            yield datagrams[start:end]
            start, size = end, after
    if sizes:
        yield datagrams[start:]
