"""The gateway's door for publishers in a thread of its own, before a source in this process."""

import asyncio
import threading

from server.gateway.limits.refusals import Refusals
from server.gateway.publish.desk import Desk
from server.gateway.publish.doors import Doors
from server.settings import Limits
from server.wire.codec import Decoder, encode
from server.wire.messages import AwaitPublisher, Message, NeedKeyframe
from server.wire.urls import PublishAddress
from server.worker.ingest.inbox import PublisherInbox


class DoorThread:
    """What is published at the address comes out of `inbox`; messages cross as bytes, as on the wire."""

    def __init__(self, address: PublishAddress, timeout_s: float) -> None:
        self._address = address
        self._loop = asyncio.new_event_loop()
        self._to_worker = Decoder()
        self.drops = 0
        self.inbox = PublisherInbox(send=self._hear, on_drop=self._count)
        self._desk = Desk(
            "published", timeout_s=timeout_s, override=False, send=self._send, on_drop=lambda count: None
        )
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._doors = Doors(Limits(), Refusals(lambda reason: None))
        self._loop.call_soon_threadsafe(self._doors.enter, address, self._desk)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _leave(self) -> None:
        self._desk.close()
        self._doors.leave(self._address, self._desk)
        await asyncio.sleep(0.1)  # what was aborted is closed

    def _send(self, message: Message) -> bool:
        for received in self._to_worker.feed(encode(message)):
            self.inbox.put(received)
        return True

    def _hear(self, message: Message) -> None:
        if isinstance(message, NeedKeyframe):
            self._loop.call_soon_threadsafe(self._desk.request_key_frame)
            return
        assert isinstance(message, AwaitPublisher)
        self._loop.call_soon_threadsafe(self._desk.await_publisher, message.opening)

    def _count(self) -> None:
        self.drops += 1
