"""Somebody who watches while others misbehave, in processes of its own: a viewer, and a poller of /healthz.

A synthetic source sends frame n at n / fps seconds of CLOCK_MONOTONIC, so whoever reads the numbers in the
pictures knows which frames of any span of time were seen, and which were not.
"""

import asyncio
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aioice.ice
import httpx
from aiortc import RTCPeerConnection, RTCSessionDescription

from server.worker.ingest.synthetic import read_frame_number
from tests.conftest import ROOT
from tests.peers.service import until

FPS = 25
SOURCE = f"synthetic:?size=160x90&fps={FPS}"
SETTLED_S = 0.5  # by when a frame of the past has come, if it comes at all


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the watcher saw in a span of time: `share` is of the frames that the source sent."""

    share: float
    longest_gap_s: float
    healthz_median_s: float
    healthz_worst_s: float

    def __str__(self) -> str:
        return (
            f"{self.share:.0%} of the frames, {1e3 * self.longest_gap_s:.0f} ms without one; "
            f"/healthz {1e3 * self.healthz_median_s:.1f} ms, {1e3 * self.healthz_worst_s:.0f} ms at worst"
        )


class Watcher:
    """Made by `watching`."""

    def __init__(self, frames: Path, polls: Path) -> None:
        self._frames = frames
        self._polls = polls

    def latest(self) -> int:
        """The number of the last frame seen, -1 before the first."""
        return int(_rows(self._frames)[-1][0]) if _rows(self._frames) else -1

    def numbers(self) -> set[int]:
        """Of all frames seen so far."""
        return {int(number) for number, _ in _rows(self._frames)}

    def seen(self, from_s: float, until_s: float) -> Seen:
        """Waits for what is still on its way."""
        last = int((until_s + SETTLED_S) * FPS)
        until(lambda: self.latest() >= last, "the watcher goes on seeing frames")
        sent = set(range(int(from_s * FPS) + 1, int(until_s * FPS) + 1))
        frames = [(int(number), arrived_s) for number, arrived_s in _rows(self._frames)]
        arrivals = [arrived_s for _, arrived_s in frames if from_s <= arrived_s < until_s]
        polls = [took_s for at_s, took_s in _rows(self._polls) if at_s + took_s >= from_s and at_s <= until_s]
        return Seen(
            share=len(sent & {number for number, _ in frames}) / len(sent),
            longest_gap_s=max(b - a for a, b in itertools.pairwise([from_s, *arrivals, until_s])),
            healthz_median_s=statistics.median(polls),
            healthz_worst_s=max(polls),
        )


@contextmanager
def watching(url: str, stream: str, token: str, folder: Path) -> Iterator[Watcher]:
    """`stream` is one of SOURCE."""
    started = []
    with (folder / "frames").open("wb") as frames, (folder / "polls").open("wb") as polls:
        for log, *words in (
            (frames, "tests.peers.watcher", url, stream, token),
            (polls, "tests.peers.poller", url),
        ):
            started.append(subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, stdout=log))
    watcher = Watcher(folder / "frames", folder / "polls")
    try:
        until(lambda: watcher.latest() >= 0 and _rows(folder / "polls"), "the watcher sees a picture")
        yield watcher
        assert all(process.poll() is None for process in started), "the watcher was thrown out"
    finally:
        for process in started:
            process.terminate()
            process.wait()


def _rows(log: Path) -> list[tuple[float, ...]]:
    """Whole lines only: the last may be half written."""
    whole = log.read_text().rpartition("\n")[0]
    return [tuple(map(float, line.split())) for line in whole.splitlines()]


async def _view(url: str, stream: str, token: str) -> None:
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    peer = RTCPeerConnection()
    receiver = peer.addTransceiver("video", direction="recvonly").receiver
    await peer.setLocalDescription(await peer.createOffer())
    headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {token}"}
    answer = await asyncio.to_thread(
        httpx.post, f"{url}whep/{stream}", content=peer.localDescription.sdp, headers=headers
    )
    answer.raise_for_status()
    await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
    while True:
        frame = await receiver.track.recv()
        luma = frame.to_ndarray(format="gray")
        number = read_frame_number(luma, scale=2)
        if number is not None:
            print(number, time.monotonic(), flush=True)


if __name__ == "__main__":
    asyncio.run(_view(*sys.argv[1:]))
