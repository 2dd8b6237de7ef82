"""Several gateways that share a cluster's streams: who is home of which, and what the others answer."""

import asyncio
import hashlib
from datetime import UTC, datetime

import pytest

from server.__main__ import main
from server.gateway.placement.homes import LEASE_S, RENEW_S, Home, Homes, Member, View
from server.gateway.streams.fleet import Fleet
from server.gateway.streams.kept import KeptStreams
from tests.ports import free_port
from tests.server.gateway.fleets import SOURCE, Record, lose, member
from tests.server.gateway.scripted_gateway import Gateway, until

NOTHING = View(epoch="", version=0, gateways={}, homes={})
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN = "a" * 32
SHA256 = hashlib.sha256(TOKEN.encode()).hexdigest()
REDIRECT = {"streams_elsewhere": "redirect"}
AUTH = {"tokens": [{"name": "one", "sha256": SHA256, "scopes": ["view:x"]}]}


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def at(gateway: str) -> Member:
    return Member(url=f"http://{gateway}")


def home(stream: str, gateway: str, *, of_settings: bool = False) -> Home:
    return Home(
        stream=stream, gateway=gateway, given={"id": stream}, created=CREATED, of_settings=of_settings
    )


def live(homes: Homes, clock: Clock, gateways: list[str], seconds: float) -> None:
    for _ in range(int(seconds / RENEW_S)):
        clock.now_s += RENEW_S
        for name in gateways:
            assert homes.renew(name, ("", 0), ()) != "unknown"


def test_a_lost_gateways_streams_go_to_exactly_one_other():
    clock = Clock()
    homes = Homes(clock)
    for name in "abc":
        homes.join(name, at(name), NOTHING)
    for number in range(4):
        homes.claim(home(f"s{number}", "a"))
    homes.claim(home("fixed", "a", of_settings=True))
    assert homes.claim(home("s0", "b")) == home("s0", "a"), "the holder is named"
    live(homes, clock, ["b", "c"], LEASE_S + RENEW_S)
    view = homes.renew("b", ("", 0), ())
    assert sorted(found.gateway for found in view.homes.values()) == ["b", "b", "c", "c"]
    assert "fixed" not in view.homes
    # One that only seemed lost learns that it has nothing any more.
    assert homes.renew("a", ("", 0), ()) == "unknown"
    late = homes.join("a", at("a"), View(epoch="x", version=1, gateways={}, homes={"s0": home("s0", "a")}))
    assert late.homes == view.homes


def test_a_record_that_stood_still_gives_nobody_up():
    clock = Clock()
    homes = Homes(clock)
    homes.join("a", at("a"), NOTHING)
    homes.join("b", at("b"), NOTHING)
    clock.now_s += 60
    assert homes.renew("a", ("", 0), ()) != "unknown"
    assert homes.renew("b", ("", 0), ()) != "unknown"


def test_streams_wait_for_a_gateway():
    clock = Clock()
    homes = Homes(clock)
    homes.join("a", at("a"), NOTHING)
    homes.claim(home("s", "a"))
    clock.now_s += 60
    assert homes.join("b", at("b"), NOTHING).gateways.keys() == {"a", "b"}
    live(homes, clock, ["b"], LEASE_S + 2 * RENEW_S)
    assert homes.renew("b", ("", 0), ()).homes["s"].gateway == "b"


def test_a_new_record_is_filled_by_what_gateways_know():
    clock = Clock()
    old, new = Homes(clock), Homes(clock)
    old.join("a", at("a"), NOTHING)
    old.join("b", at("b"), NOTHING)
    old.claim(home("at-a", "a"))
    old.claim(home("at-b", "b"))
    seen = old.renew("b", ("", 0), ())
    assert new.renew("b", ("", 0), ()) == "unknown"
    new.join("b", at("b"), seen)
    assert new.claim(home("at-a", "b")) == home("at-a", "a"), "a is still to come"
    live(new, clock, ["b"], LEASE_S + RENEW_S)  # and never does
    assert {found.gateway for found in new.renew("b", ("", 0), ()).homes.values()} == {"b"}


def test_a_new_record_keeps_the_secret_though_a_new_gateway_is_first():
    clock = Clock()
    old, new = Homes(clock), Homes(clock)
    old.join("a", at("a"), NOTHING)
    seen = old.renew("a", ("", 0), ())
    invented = new.join("b", at("b"), NOTHING)
    assert invented.secret != seen.secret
    new.join("b", at("b"), invented)
    assert new.join("a", at("a"), seen).secret == seen.secret
    heard = new.renew("b", (invented.epoch, invented.version), ())
    assert heard.secret == seen.secret
    other = Homes(clock).join("c", at("c"), NOTHING)
    assert new.join("c", at("c"), other).secret == seen.secret, "the first"


async def test_whoever_looks_hears_what_the_record_says_by_then():
    record = Record()
    a, b = (Fleet(record, f"http://{name}") for name in "ab")
    for fleet in (a, b):
        await fleet.join()
    await b.look()
    await a.claim("s", {"id": "s"}, CREATED)
    assert await b.find("s") == "http://a"


async def test_without_the_record_all_who_look_wait_for_one_question():
    asked = []

    class Silent(Record):
        async def renew(self, *args):
            asked.append(args)
            await asyncio.sleep(0.2)
            raise OSError("the record has not answered")

    fleet = Fleet(Silent(), "http://a")
    await fleet.join()
    assert set(await asyncio.gather(*(fleet.find("s") for _ in range(20)))) == {None}
    assert len(asked) == 1


async def listed(served: Gateway) -> set[str]:
    return {stream["id"] for stream in (await served.http.get("/api/streams")).json()}


async def test_any_gateway_answers_for_all(capsys: pytest.CaptureFixture[str]):
    record = Record()
    async with (
        member(record, ("fixed",), server=REDIRECT) as a,
        member(record, ("fixed",), server=REDIRECT) as b,
    ):
        assert len(a.placement.workers) == 1
        assert not b.placement.workers, "of two that have it in their settings one runs it"
        made = {"id": "s", "source": SOURCE}
        assert (await a.http.post("/api/streams", json=made)).status_code == 201
        refused = await b.http.post("/api/streams", json=made)
        assert refused.status_code == 409
        assert a.base in refused.json()["detail"]
        assert await listed(a) == await listed(b) == {"s", "fixed"}
        assert (await b.http.get("/api/streams?here=true")).json() == []
        for method, path in (
            ("GET", "/api/streams/s"),
            ("POST", "/api/streams/s/move"),
            ("POST", "/whep/s?rendition=source"),
            ("POST", "/whip/s"),
            ("GET", "/hls/s/index.m3u8?_HLS_msn=1"),
        ):
            sent_on = await b.http.request(method, path)
            assert sent_on.status_code == 307
            assert sent_on.headers["Location"] == f"{a.base}{path}"
        assert (await b.http.get("/api/streams/none")).status_code == 404
        assert await asyncio.to_thread(main, ["streams", "remove", "s", "--url", b.base]) == 2
        assert f"at home at another gateway (--url {a.base}/)" in capsys.readouterr().err
        followed = await b.http.delete("/api/streams/s", follow_redirects=True)
        assert followed.status_code == 204
        assert (await b.http.get("/api/streams/s")).status_code in (307, 404)
        await until(lambda: _is(b, made), "the name is free again")

        # A gateway that doesn't answer costs its streams' details only.
        away = Member(url=f"http://127.0.0.1:{free_port()}")
        record.homes.join(a.app._fleet.id, away, a.app._fleet._view)

        async def unreached() -> dict | None:
            streams = {stream["id"]: stream for stream in (await b.http.get("/api/streams")).json()}
            assert streams["s"]["state"] != "reconnecting"
            return streams["fixed"] if streams["fixed"]["state"] == "reconnecting" else None

        fixed = await until(unreached, "b has heard of that")
        assert "does not answer" in fixed["reason"]


async def _lists(served: Gateway, streams: set[str]) -> bool:
    return await listed(served) == streams


async def _is(served: Gateway, made: dict) -> bool:
    return (await served.http.post("/api/streams", json=made)).status_code == 201


async def test_strangers_are_not_told_where_a_stream_is():
    record = Record()
    async with (
        member(record, ("x", "y"), auth=AUTH, server=REDIRECT),
        member(record, auth=AUTH, server=REDIRECT) as b,
    ):
        assert (await b.http.get("/api/streams/x")).status_code == 401
        wrong = {"Authorization": "Bearer nobody's"}
        assert (await b.http.get("/api/streams/x", headers=wrong)).status_code == 401
        token = {"Authorization": f"Bearer {TOKEN}"}
        assert (await b.http.get("/api/streams/x", headers=token)).status_code == 307
        assert (await b.http.get("/api/streams/y", headers=token)).status_code == 403
        answer = await b.http.get("/api/streams", headers=token)
        assert [stream["id"] for stream in answer.json()] == ["x"], "as the caller may"


async def test_a_lost_gateways_streams_run_at_another(tmp_path):
    record = Record()
    kept = KeptStreams(tmp_path / "a.db")
    both = ("fixed", "deleted")
    async with member(record, both, kept=kept, server=REDIRECT) as a:
        assert (await a.http.post("/api/streams", json={"id": "s", "source": SOURCE})).status_code == 201
        created = (await a.stream("s"))["created"]
        async with (
            member(record, both, server=REDIRECT) as b,
            member(record, server=REDIRECT) as c,
        ):
            assert (await a.http.delete("/api/streams/deleted")).status_code == 204
            waiting = [served.app._fleet._waits_for for served in (b, c)]
            await until(lambda: all("deleted" not in names for names in waiting), "they have seen that")
            await lose(a, record)
            assert await listed(a) >= {"s"}, "nor does a request bring the lease back"

            async def taken() -> list[Gateway]:
                return [served for served in (b, c) if "s" in await _here(served)]

            await until(taken, "another has it")
            (home,) = await taken()
            (job,) = [worker.job for worker in home.placement.workers if worker.job.stream == "s"]
            assert job.takes_over, "players come here and wait: a standby is for them"
            assert (await home.stream("s"))["created"] == created
            (other,) = {b.base, c.base} - {home.base}

            async def sent_on() -> bool:
                answer = await home.http.get(f"{other}/api/streams/s")
                return answer.headers.get("Location") == f"{home.base}/api/streams/s"

            await until(sent_on, "the third knows where it is")
            # The lost one comes back: it has it no more, nor after a restart.
            a.app._fleet.start(lambda: a.app._reloader._strangers.follow_homes())
            await until(lambda: _runs_nothing(a), "the one that was lost has ended it")
            await until(lambda: _lists(c, {"s", "fixed"}), "what is in the settings of others, too, goes on")
    assert not KeptStreams(tmp_path / "a.db").at_start


async def _runs_nothing(served: Gateway) -> bool:
    return not await _here(served)


async def _here(served: Gateway) -> set[str]:
    return {stream["id"] for stream in (await served.http.get("/api/streams?here=true")).json()}


async def test_without_the_record_streams_go_on():
    record = Record()
    async with member(record) as a, member(record) as b:
        assert (await a.http.post("/api/streams", json={"id": "s", "source": SOURCE})).status_code == 201
        await until(lambda: _elsewhere(b, "s"), "b knows")
        record.away = True
        refused = await b.http.post("/api/streams", json={"id": "t", "source": SOURCE})
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        assert await listed(b) == {"s"}
        record.homes, record.away = Homes(), False  # it was lost, with all that it knew
        await until(lambda: _is(b, {"id": "t", "source": SOURCE}), "it is filled again")
        assert await listed(a) == await listed(b) == {"s", "t"}
        assert (await a.http.get("/api/streams/s")).json()["worker"]["restarts"] == 0


def _elsewhere(served: Gateway, stream: str) -> bool:
    return served.app._fleet.elsewhere(stream) is not None
