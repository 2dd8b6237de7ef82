"""A viewer behind a link that carries so many bits a second and holds so much before it drops."""

from loadtest.relay import Relay
from tests.server.gateway.scripted_gateway import Gateway, Viewer

QUEUE_S = 0.1


class SlowViewer(Viewer):
    """Knows the gateway by the link's port only, and the other way round."""

    def __init__(self, gateway: Gateway, rate_bps: float) -> None:
        super().__init__(gateway, audio=False)
        self.link = Relay(rate_bps=rate_bps, queue_s=QUEUE_S)

    def to_gateway(self, offer: str) -> str:
        return self.link.offer(offer)

    async def from_gateway(self, answer: str) -> str:
        return self.link.answer(answer)

    async def __aenter__(self) -> "SlowViewer":
        self.link.__enter__()
        await super().__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        self.link.__exit__(*exc)
