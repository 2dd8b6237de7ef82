"""Several gateways that share a cluster's streams, in this process."""

import contextlib
from collections.abc import AsyncIterator

from server.gateway.placement.homes import Homes
from server.gateway.streams.fleet import Fleet
from tests.ports import free_port
from tests.server.gateway.scripted_gateway import Gateway, gateway

SOURCE = "synthetic:?size=160x90&fps=8"


class Record:
    """A `Registry` in this process, which may be away or lost."""

    def __init__(self) -> None:
        self.homes = Homes()
        self.away = False

    async def join(self, *args):
        return self._homes().join(*args)

    async def renew(self, *args):
        return self._homes().renew(*args)

    async def claim(self, *args):
        return self._homes().claim(*args)

    def _homes(self) -> Homes:
        if self.away:
            raise OSError("the record is away")
        return self.homes


@contextlib.asynccontextmanager
async def member(record: Record, streams: tuple[str, ...] = (), **more) -> AsyncIterator[Gateway]:
    """A gateway of that cluster; `more` as for any."""
    port = free_port()
    fleet = Fleet(record, f"http://127.0.0.1:{port}")
    async with gateway(streams=streams, source=SOURCE, fleet=fleet, port=port, **more) as served:
        yield served


async def lose(served: Gateway, record: Record) -> None:
    """As a stop begins: nothing is heard of it any more, but what runs in it goes on."""
    await served.app._fleet.close()
    record.homes._until_s[served.app._fleet.id] = 0.0  # sooner than by waiting
