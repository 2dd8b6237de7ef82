"""The record of homes in a named, detached actor of Ray, which outlives the gateways."""

import asyncio
from collections.abc import Collection
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError, RayError

from server.gateway.placement.homes import Home, Homes, Member, View
from server.gateway.placement.ray_cluster import NAMESPACE
from server.wire.logs import get_logger

log = get_logger(__name__)

_NAME = "homes"
_ANSWER_S = 1.0
_FIRST_ANSWER_S = 30.0  # its process starts
# Of the head alone: a cluster that loses it is lost anyway.
_ON_THE_HEAD = {"node:__internal_head__": 0.001}


class RayHomes:
    """A `Registry`."""

    def __init__(self) -> None:
        """Waits for the actor; raises ValueError where it doesn't come."""
        try:
            self._actor = _find_or_start()
            ray.get(self._actor.__ray_ready__.remote(), timeout=_FIRST_ANSWER_S)
        except (RayError, ValueError) as exc:
            raise ValueError(f"--cluster: the record of homes doesn't start: {exc}") from exc

    async def join(self, gateway: str, member: Member, seen: View) -> View:
        joined: View = await self._ask("join", gateway, member, seen)
        return joined

    async def renew(
        self, gateway: str, seen: tuple[str, int], gone: Collection[str]
    ) -> View | Literal["same", "unknown"]:
        renewed: View | Literal["same", "unknown"] = await self._ask("renew", gateway, seen, gone)
        return renewed

    async def claim(self, home: Home) -> Home | Literal["unknown"]:
        holder: Home | Literal["unknown"] = await self._ask("claim", home)
        return holder

    async def _ask(self, method: str, *args: Any) -> Any:
        try:
            return await asyncio.wait_for(getattr(self._actor, method).remote(*args), _ANSWER_S)
        except TimeoutError:
            raise OSError(f"the record of homes has not answered within {_ANSWER_S:g} s") from None
        except RayActorError as exc:
            log.warning("record of homes lost", reason=str(exc).splitlines()[0])
            await self._start_again()
            raise OSError("the record of homes was lost, and starts again") from exc
        except RayError as exc:
            raise OSError(f"the record of homes has failed: {exc}") from exc

    async def _start_again(self) -> None:
        """Whichever gateway is first; the others find it."""
        try:
            self._actor = await asyncio.to_thread(_find_or_start)
        except (RayError, ValueError) as exc:
            raise OSError(f"the record of homes doesn't start: {exc}") from exc


def _find_or_start() -> Any:
    options: dict[str, Any] = {"name": _NAME, "namespace": NAMESPACE, "lifetime": "detached"}
    options |= {"get_if_exists": True, "num_cpus": 0, "max_restarts": 0, "resources": _ON_THE_HEAD}
    return ray.remote(Homes).options(**options).remote()
