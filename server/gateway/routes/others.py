"""What the other gateways of the cluster tell of their streams, in the name of whoever asks."""

import asyncio
import ssl
from collections.abc import Sequence

import httpx
from pydantic import TypeAdapter, ValidationError

from server.gateway.auth.scopes import Caller
from server.gateway.figures.views import StreamView
from server.gateway.placement.homes import Home
from server.gateway.routes.forward import IDLE_S
from server.gateway.streams.fleet import Fleet
from server.gateway.streams.show import show_unreached
from server.settings import PipelineOptions
from server.wire.logs import get_logger

log = get_logger(__name__)

_ANSWER_S = 1.0
_Streams = TypeAdapter(list[StreamView])


class Others:
    """Over HTTP, with the caller's own token: a gateway needs none of the others' trust."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._http = httpx.AsyncClient(
            timeout=_ANSWER_S,
            verify=ssl.create_default_context(),
            trust_env=False,
            limits=httpx.Limits(keepalive_expiry=IDLE_S),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def streams(self, caller: Caller, token: str | None, defaults: PipelineOptions) -> list[StreamView]:
        """Those that the caller may view; of a gateway that doesn't answer only what the record has, with
        `defaults` for what it leaves out."""
        await self._fleet.look()
        gateways = [(url, homes) for url, homes in self._fleet.others() if homes]
        asked = await asyncio.gather(*(self._ask(url, token) for url, _ in gateways))
        return [
            view
            for (url, homes), answer in zip(gateways, asked, strict=True)
            for view in (_unreached(url, homes, defaults) if answer is None else answer)
            if caller.may("view", view.id)
        ]

    async def _ask(self, url: str, token: str | None) -> list[StreamView] | None:
        headers = {} if token is None else {"Authorization": token}
        try:
            async with asyncio.timeout(_ANSWER_S):  # httpx's own is for each step
                answer = await self._http.get(f"{url}/api/streams?here=true", headers=headers)
            answer.raise_for_status()
            return _Streams.validate_json(answer.content)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValidationError) as exc:
            why = str(exc).split("\n")[0] or type(exc).__name__
            log.warning("gateway not reached", gateway=url, reason=why)
            return None


def _unreached(url: str, homes: Sequence[Home], defaults: PipelineOptions) -> list[StreamView]:
    reason = f"its gateway, {url}, does not answer"
    return [show_unreached(home.stream, home.given, home.created, reason, defaults) for home in homes]
