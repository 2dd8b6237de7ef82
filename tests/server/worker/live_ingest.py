"""A live source running in a thread, and what came of it."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

from server.wire.logs import get_logger
from server.wire.messages import AudioPacket, Message, Reconnecting
from server.wire.source_policy import SourcePolicy
from server.wire.urls import publish_address
from server.worker.ingest.open import open_source
from server.worker.ingest.source import SourceUnusable
from server.worker.ingest.synthetic import read_frame_number
from server.worker.live import LiveIngest
from server.worker.process.picture import Picture
from tests.server.door import DoorThread


def watched() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


class Ingest:
    """A live source running in a thread, and what came of it."""

    def __init__(self, url: str, timeout_s: float = 5.0, policy: SourcePolicy | None = None) -> None:
        self.pictures: list[Picture] = []
        self.messages: list[Message] = []
        self.drops: Counter[str] = Counter()
        self.failure: Exception | None = None
        self.stop = threading.Event()
        address = publish_address(url)
        self.door = DoorThread(address, timeout_s) if address else None
        self._ingest = LiveIngest(
            open_source(
                url,
                policy=policy,
                loop=True,
                max_size=(1920, 1080),
                timeout_s=timeout_s,
                stop=self.stop,
                inbox=self.door.inbox if self.door else None,
            ),
            max_size=(1920, 1080),
            timeout_s=timeout_s,
            send=self.messages.append,
            on_drop=lambda _, reason: self.drops.update([reason]),
            on_sound_drop=lambda reason: self.drops.update([reason]),
            on_open=lambda: None,
            stop=self.stop,
            watched=watched(),
            log=get_logger("test"),
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._ingest.run(self.pictures.append)
        except SourceUnusable as exc:
            self.failure = exc

    def until(self, done: Callable[["Ingest"], object], timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not done(self):
            assert time.monotonic() < deadline, (len(self.pictures), self.messages[-3:])
            assert self._thread.is_alive() or self.failure, "the source ended"
            time.sleep(0.02)

    @property
    def lost(self) -> list[Reconnecting]:
        return [m for m in self.messages if isinstance(m, Reconnecting)]

    def end(self) -> None:
        self.stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        if self.door:
            self.door.close()


def assert_plays(ingest: Ingest) -> None:
    """Numbered pictures in order, at the pace of the clip, on the clock of their arrival; sound along."""
    pictures = ingest.pictures[5:]
    numbers = [read_frame_number(picture.planes.y) for picture in pictures]
    assert None not in numbers
    assert all(b == a + 1 for a, b in pairwise(numbers))
    for picture in pictures[-20:]:
        assert abs(picture.pts / 90_000 - picture.demuxed_ns / 1e9) < 1.1
    steps = [b.pts - a.pts for a, b in pairwise(pictures[-20:])]
    assert all(abs(step - 3600) <= 100 for step in steps)
    codecs = {m.codec for m in ingest.messages if isinstance(m, AudioPacket)}
    assert codecs == {"aac", "opus"}
