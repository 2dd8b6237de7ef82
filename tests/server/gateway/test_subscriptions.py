"""What two gateways tell each other of a stream's viewers and of its end."""

from datetime import UTC, datetime
from types import SimpleNamespace

from server.gateway.placement import home
from server.gateway.placement.homes import Home, View
from server.gateway.streams.fleet import Fleet
from server.gateway.streams.subscriptions import Subscriptions
from server.settings import Limits, StreamSettings
from server.wire.hello import Viewers
from tests.server.gateway.fleets import SOURCE, Record


async def test_a_home_that_takes_nothing_now_is_told_later(monkeypatch):
    taken, sent = [], []

    class Subscription:
        def send(self, message) -> bool:
            sent.append(message)
            return bool(taken)

    async def subscribed(ticket, stream) -> Subscription:
        return Subscription()

    async def find(stream) -> None:
        pass

    monkeypatch.setattr(home, "subscribe", subscribed)
    placement = home.HomePlacement(find)
    await placement.start(StreamSettings(id="s", source=SOURCE).job(Limits()))
    viewers = Viewers(whep=1, hls=2)
    placement.tell(viewers)
    taken.append(True)
    for _ in range(3):
        placement.tell(viewers)
    assert sent == [viewers] * 2


def test_a_stream_whose_new_home_is_unknown_yet_is_not_called_deleted():
    fleet = Fleet(Record(), "http://a")
    subscriptions = Subscriptions(SimpleNamespace(closing=False), fleet)
    relay = SimpleNamespace(relay=SimpleNamespace(has_ended=True))
    stream = SimpleNamespace(id="s", outputs=relay, state="running", reason="")
    assert "deleted" in subscriptions._last_word(stream).reason
    created = datetime(2026, 1, 1, tzinfo=UTC)
    moved = Home(stream="s", gateway="b", given={}, created=created, of_settings=False)
    fleet._view = View(epoch="", version=1, gateways={}, homes={"s": moved})
    assert subscriptions._last_word(stream) is None
