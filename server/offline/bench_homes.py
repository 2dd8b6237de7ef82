"""What the record of homes takes where a fleet has so many streams: in one process, without the way to it."""

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from server.gateway.placement.homes import LEASE_S, RENEW_S, Home, Homes, Member, View

_GATEWAYS = 10
_TURNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class HomesCost:
    """CPU times of one gateway's renewal while nothing changes, of the whole view with its pickling on both
    sides, which a gateway gets after a change, and of dividing a lost gateway's streams among the others."""

    renew_ms: float
    view_ms: float
    view_bytes: int
    loss_ms: float


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def bench_homes(streams: int) -> HomesCost:
    """Streams as the API is given them, shared evenly by ten gateways."""
    clock = _Clock()
    homes = Homes(clock)
    nothing = View(epoch="", version=0, gateways={}, homes={})
    gateways = [f"{number:016x}" for number in range(_GATEWAYS)]
    for gateway in gateways:
        homes.join(gateway, Member(url=f"http://10.0.0.{int(gateway, 16)}:8000"), nothing)
    for number in range(streams):
        given = {"id": f"camera-{number}", "source": f"rtsp://user:secret@10.1.0.{number % 250}:554/live"}
        homes.claim(
            Home(
                stream=given["id"],
                gateway=gateways[number % _GATEWAYS],
                given=given,
                created=datetime.now(UTC),
                of_settings=False,
            )
        )
    view = homes.renew(gateways[0], ("", 0), ())
    assert isinstance(view, View)
    seen = (view.epoch, view.version)
    renew_ms = _least_ms(lambda: homes.renew(gateways[0], seen, ()))
    view_ms = _least_ms(lambda: pickle.loads(pickle.dumps(homes.renew(gateways[0], ("", 0), ()))))  # noqa: S301
    # All renew but one, until its lease is over.
    for _ in range(round(LEASE_S / RENEW_S)):
        clock.now_s += RENEW_S
        for gateway in gateways[1:]:
            homes.renew(gateway, seen, ())
    clock.now_s += RENEW_S / 2
    began_s = time.process_time()
    after = homes.renew(gateways[1], seen, ())
    loss_ms = 1e3 * (time.process_time() - began_s)
    assert isinstance(after, View)
    assert len(after.homes) == streams
    assert gateways[0] not in after.gateways
    return HomesCost(renew_ms=renew_ms, view_ms=view_ms, view_bytes=len(pickle.dumps(view)), loss_ms=loss_ms)


def _least_ms(call: Callable[[], Any]) -> float:
    def once() -> float:
        began_s = time.process_time()
        call()
        return time.process_time() - began_s

    return 1e3 * min(once() for _ in range(_TURNS))
