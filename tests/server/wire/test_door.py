"""The door by itself; what comes through it is tested with hosts and gateways."""

import asyncio

from server.wire.door import Door


async def test_who_comes_as_it_closes_is_hung_up_on(monkeypatch):
    come = Door._come

    def come_and_be_cancelled(self, reader, writer) -> None:
        come(self, reader, writer)
        for visit in self._visits:
            visit.cancel()

    async def serve(visitor, stream) -> None:
        raise AssertionError("nobody was let in")

    monkeypatch.setattr(Door, "_come", come_and_be_cancelled)
    door = Door(admit=lambda hello: None, serve=serve, here="the host on attic")
    await door.open("127.0.0.1")
    reader, writer = await asyncio.open_connection(door.address.host, door.address.port)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    await door.close()
