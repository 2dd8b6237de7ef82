"""Two workers of one stream, each with its own delay: what viewers get is every frame once."""

import heapq
import itertools
import random
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from server.gateway.streams.splice import HELD_S, Splice
from server.wire.messages import AudioPacket, EngineLoad, Heartbeat, Message, Trace, VideoPacket
from tests.server.gateway.scripted_media import opened

FPS = 25
TICKS = 90_000 // FPS
TRACE = Trace(demux=0, decode=0, queue=0, upscale=0, encode=0)


def picture(
    number: int, *, off: int = 0, keyframe: bool, rendition: str = "upscaled", who: str
) -> VideoPacket:
    return VideoPacket(
        rendition=rendition,
        pts=number * TICKS + off,
        duration=TICKS,
        keyframe=keyframe,
        arrival_ns=0,
        sent_ns=0,
        trace=TRACE,
        payload=f"{number} {who}".encode(),
    )


@dataclass
class Worker:
    """Sends frame n at n/25 s and its delay, with jitter; and sound."""

    who: str
    delay_s: float
    first: int = 0
    off: int = 0  # its timestamps are so many ticks apart from the other's
    jitter_s: float = 0.0
    gop: int = 50
    asked: bool = False
    last_s: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(3))

    def frame(self, number: int) -> list[Message]:
        keyframe = self.asked or number % self.gop == self.first % self.gop
        self.asked = False
        return [
            picture(number, off=self.off, keyframe=keyframe, who=self.who),
            picture(number, off=self.off, keyframe=keyframe, rendition="source", who=self.who),
            *(
                AudioPacket(codec="opus", pts=at, duration=960, payload=self.who.encode())
                for at in (number * 1920, number * 1920 + 960)
            ),
        ]


def play(present: Worker, following: Worker, *, seconds: float = 12.0) -> tuple[list[Message], Splice]:
    got: list[Message] = []
    now = [0.0]
    splice = Splice(
        deliver=got.append,
        request_keyframe=lambda: setattr(following, "asked", True),
        on_switch=lambda: got.append(opened(2, 2, None)),
        clock_s=lambda: now[0],
    )
    events: list[tuple[float, int, str, int]] = []
    for worker in (present, following):
        at_s = 0.0
        for number in range(worker.first, int(seconds * FPS)):
            late_s = worker.delay_s + worker.chance.uniform(0, worker.jitter_s)
            at_s = max(at_s, number / FPS + late_s)
            heapq.heappush(events, (at_s, len(events), worker.who, number))
    for tick in range(int(seconds * 20)):
        heapq.heappush(events, (tick / 20, len(events), "tick", 0))
    started = False
    while events and events[0][0] < seconds:
        now[0], _, who, number = heapq.heappop(events)
        if who == "tick":
            splice.tick()
        elif who == present.who:
            for message in present.frame(number):
                splice.from_present(message)
        else:
            for message in following.frame(number):
                splice.from_next(message)
            if not started:
                started = True
                splice.from_next(opened(2, 2, None))
                splice.from_next(Heartbeat(queues={}, rss_bytes=1, cpu_s=0))
    return got, splice


def frames(got: list[Message], rendition: str) -> list[tuple[int, str, bool]]:
    packets = [m for m in got if isinstance(m, VideoPacket) and m.rendition == rendition]
    return [(int(p.payload.split()[0]), p.payload.split()[1].decode(), p.keyframe) for p in packets]


@pytest.mark.parametrize("off", [0, TICKS // 3, -TICKS // 3])
@pytest.mark.parametrize(
    ("present_s", "following_s", "jitter_s"),
    [
        (0.05, 0.05, 0.0),
        (0.2, 0.05, 0.0),
        (0.05, 0.2, 0.0),
        (0.05, 0.45, 0.0),
        (0.1, 0.12, 0.08),
        (0.4, 0.02, 0.05),
    ],
)
def test_every_frame_once_and_in_order(present_s: float, following_s: float, jitter_s: float, off: int):
    got, splice = play(
        Worker("a", present_s, jitter_s=jitter_s),
        Worker("b", following_s, first=60, off=off, jitter_s=jitter_s),
    )
    assert splice.done
    for rendition in ("upscaled", "source"):
        seen = frames(got, rendition)
        assert [number for number, _, _ in seen] == list(range(len(seen)))
        whose = "".join(who for _, who, _ in seen)
        assert whose == "a" * whose.count("a") + "b" * whose.count("b")
        assert "b" in whose
        assert seen[whose.index("b")][2], "it takes over at a key frame"
    sounds = [m for m in got if isinstance(m, AudioPacket)]
    assert all(a.pts + a.duration == b.pts for a, b in itertools.pairwise(sounds))


def test_a_worker_that_never_catches_up_takes_nothing_over():
    got, splice = play(Worker("a", 0.05), Worker("b", HELD_S + 1, first=60))
    assert not splice.done
    assert splice.holds > 0
    assert [number for number, _, _ in frames(got, "upscaled")][:200] == list(range(200))


def test_nothing_of_a_worker_is_taken_before_its_engine_is_there():
    got: list[Message] = []
    splice = Splice(deliver=got.append, request_keyframe=lambda: None, on_switch=lambda: None)
    loading = EngineLoad(state="loading", model="m", width=2, height=2, elapsed_s=0, detail="")
    for message in (opened(2, 2, None), loading, Heartbeat(queues={}, rss_bytes=1, cpu_s=0)):
        splice.from_next(message)
    splice.from_present(picture(1, keyframe=True, who="a"))
    splice.from_next(picture(2, keyframe=True, who="b"))
    splice.from_present(picture(2, keyframe=False, who="a"))
    assert not splice.done
    splice.from_next(replace(loading, state="ready"))
    splice.from_next(Heartbeat(queues={}, rss_bytes=1, cpu_s=0))
    splice.from_next(picture(4, keyframe=True, who="b"))
    splice.from_present(picture(3, keyframe=False, who="a"))
    splice.from_present(picture(4, keyframe=False, who="a"))
    assert splice.done
    assert [number for number, _, _ in frames(got, "upscaled")] == [1, 2, 3, 4]


def test_a_present_worker_that_stops_short_of_the_cut_is_not_waited_for():
    now = [0.0]
    got: list[Message] = []
    splice = Splice(
        deliver=got.append, request_keyframe=lambda: None, on_switch=lambda: None, clock_s=lambda: now[0]
    )
    splice.from_next(opened(2, 2, None))
    splice.from_next(Heartbeat(queues={}, rss_bytes=1, cpu_s=0))
    splice.from_present(picture(1, keyframe=True, who="a"))
    splice.from_next(picture(3, keyframe=True, who="b"))
    splice.tick()
    assert not splice.done
    now[0] = 1.0
    splice.tick()
    assert splice.done
