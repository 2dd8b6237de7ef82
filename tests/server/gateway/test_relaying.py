"""Gateways behind one name: a stream is watched, and all about it asked, at whichever."""

import asyncio
import contextlib
import logging
import time
from functools import partial
from io import BytesIO
from itertools import pairwise

import av
import pytest

from server.gateway.h264 import to_sample
from server.gateway.placement import remote
from server.gateway.placement.homes import Member
from server.gateway.placement.remote import HostUnreachable, subscribe
from server.gateway.relay.sink import Subscriber
from server.gateway.routes import hls
from server.gateway.streams import relays
from server.wire.messages import Stop, VideoPacket
from tests.logs import events
from tests.ports import free_port
from tests.server.gateway.fleets import SOURCE, Record, member
from tests.server.gateway.hls_media import Media, video
from tests.server.gateway.scripted_gateway import Gateway, Viewer, loopback, until  # noqa: F401
from tests.server.gateway.scripted_media import opened
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement
from tests.server.gateway.test_auth import bearer, tokens
from tests.server.gateway.test_negotiate import CHROMIUM_OFFER
from tests.server.node.hosts import another_version, forged

HLS = {"segment_s": 1.0, "segments": 12}
WATCHED = {"upscale_when": "watched"}


@contextlib.asynccontextmanager
async def cluster(count: int, script: Script | None = None, **more):
    """So many gateways; the first one is home of the stream "s"."""
    record = Record()
    more = {"hls": HLS, "defaults": WATCHED} | more
    async with contextlib.AsyncExitStack() as stack:
        served = []
        for _ in range(count):
            placement = ScriptedPlacement(script or Script())
            one = member(record, placement=placement, **more)
            served.append(await stack.enter_async_context(one))
        if "auth" not in more:
            made = await served[0].http.post("/api/streams", json={"id": "s", "source": SOURCE})
            assert made.status_code == 201
            await until(lambda: all(one.app._fleet.home("s") for one in served), "all know")
        yield served


async def playlist(served: Gateway, stream: str = "s") -> tuple[str, Media]:
    """Of the one variant that there always is, as a player gets to it."""
    top = await served.http.get(f"/hls/{stream}/index.m3u8", timeout=20)
    assert top.status_code == 200, top.text
    path = next(line for line in top.text.splitlines() if line and not line.startswith("#"))
    url = f"/hls/{stream}/{path}"
    media = await served.http.get(url, timeout=20)
    assert media.status_code == 200, media.text
    return url, Media.parse(media.text)


async def access_units(served: Gateway, url: str) -> list[list[bytes]]:
    """Of each segment that is listed in that playlist, without the container."""
    folder = url.rpartition("/")[0]
    media = Media.parse((await served.http.get(url)).text)
    segments: list[list[bytes]] = []
    for entry in media.entries:
        files = [await served.http.get(f"{folder}/{name}") for name in (entry.init, entry.name)]
        assert {file.status_code for file in files} == {200}
        with av.open(BytesIO(b"".join(file.content for file in files))) as container:
            segments.append([bytes(packet) for packet in container.demux(video=0) if packet.size])
    return segments


async def _several(served: Gateway, url: str) -> list[list[bytes]]:
    segments = await access_units(served, url)
    return segments if sum(map(len, segments)) > 25 else []


async def test_many_viewers_of_another_gateway_are_one_subscription():
    """Of which they get what viewers at home get, byte for byte; it ends a little after the last of them."""
    async with cluster(2, Script(gop_s=1e4, noise_bps=400_000)) as (a, b):
        said, say = [], a.worker.say

        def spoken(message) -> None:
            if isinstance(message, VideoPacket) and message.rendition == "upscaled":
                said.append(to_sample(message.payload)[0])
            say(message)

        a.worker.say = spoken
        async with Viewer(b, "s") as one, Viewer(b, "s", rendition="source") as two:
            await two.sees(5)
            frames = await one.sees(20)
            assert all(x.pts < y.pts for x, y in pairwise(frames))
            await until(lambda: one.sound, "sound")
            for served in (a, b):
                url, _ = await playlist(served)
                segments = await until(partial(_several, served, url), "segments")
                for units in segments:
                    begins = said.index(units[0])
                    assert said[begins : begins + len(units)] == units, "as the encoder made them"

            assert len(a.placement.workers) == 1
            assert not b.placement.workers
            assert a.worker.keyframe_requests, (
                "those who join at b wait for no key frame of the encoder's own"
            )
            here, there = await b.metrics(), await a.metrics()
            assert there['livesr_subscribers{stream="s"}'] == 1
            assert here['livesr_viewers{protocol="whep",stream="s"}'] == 2
            assert there['livesr_viewers{protocol="whep",stream="s"}'] == 0
            assert there['livesr_frames_total{stream="s"}'] > 20
            once = [name for name in here if 'stream="s"' in name and name.startswith("livesr_frame")]
            assert not [name for name in once if "dropped" not in name]
            assert here['livesr_relayed_frame_latency_seconds_count{stream="s"}'] > 20
            counted = (await a.stream("s"))["viewers"]
            assert counted["whep"] == 2, "of all gateways"
            assert counted["hls"] >= 1
        b.app._streams._relayed["s"][0].figures.hls_players._players.clear()  # they are gone, too
        relay = b.app.relaying._relays._relays["s"]
        await until(lambda: not relay.stream.audience.watches, "nobody watches", 20)
        relay.wanted_s -= relays.LINGER_S

        async def unsubscribed() -> bool:
            return (await a.metrics())['livesr_subscribers{stream="s"}'] == 0

        await until(unsubscribed, "the subscription has ended")
        assert not [name for name in await b.metrics() if 'stream="s"' in name]


async def test_a_home_that_is_lost_is_found_again_under_the_same_viewer():
    """At another gateway, then at the viewer's own: its connection goes on, and an HLS player's playlist."""
    record, stacks = Record(), {}
    async with contextlib.AsyncExitStack() as others:
        for _ in range(2):
            stack = await others.enter_async_context(contextlib.AsyncExitStack())
            served = await stack.enter_async_context(member(record, defaults=WATCHED))
            stacks[served.app._fleet.id] = stack
        made = await served.http.post("/api/streams", json={"id": "s", "source": SOURCE})
        assert made.status_code == 201
        async with member(record, hls=HLS) as c, Viewer(c, "s") as viewer:
            await viewer.sees(5)
            url, before = await playlist(c)
            while stacks:
                assert not c.placement.workers
                home = record.homes._homes["s"].gateway
                await stacks.pop(home).aclose()
                record.homes._until_s[home] = 0.0  # sooner than by waiting
                count = len(viewer.frames[0])
                await viewer.sees(count + 15)
            assert record.homes._homes["s"].gateway == c.app._fleet.id
            assert viewer.pc.connectionState == "connected"
            assert all(x.pts < y.pts for x, y in pairwise(viewer.frames[0]))
            assert len(c.placement.workers) == 1

            # All of it is this gateway's now, and what is counted with it.
            assert (await c.stream("s"))["viewers"]["whep"] == 1

            async def goes_on() -> bool:
                after = Media.parse((await c.http.get(url, timeout=20)).text)
                marks = sum(entry.discontinuity for entry in after.entries)
                return marks >= 2 and after.sequence == before.sequence

            await until(goes_on, "the playlist goes on")
            metrics = await c.metrics()
            assert metrics['livesr_viewers{protocol="whep",stream="s"}'] == 1
            assert metrics['livesr_frames_total{stream="s"}'] > 5
            assert metrics['livesr_stream_state{state="running",stream="s"}'] == 1
            await c.http.delete(viewer.location)
            await until(lambda: not c.peers(), "the viewer has left")
            assert (await c.metrics())['livesr_viewers{protocol="whep",stream="s"}'] == 0


async def test_who_watches_elsewhere_is_told_the_end_as_at_home():
    async with cluster(2) as (a, b), Viewer(b, "s") as viewer:
        await viewer.sees(5)
        url, _ = await playlist(b)
        a.worker.die()  # which is no end
        count = len(viewer.frames[0])
        await viewer.sees(count + 10)
        assert len(a.placement.workers) == 2
        assert 'livesr_worker_restarts_total{stream="s"}' not in await b.metrics(), "it counts once"
        assert (await b.http.delete("/api/streams/s")).status_code == 204, "at home, in the caller's name"
        assert isinstance(a.worker.received[-1], Stop)
        await until(lambda: not b.peers(), "the viewer's session has ended")
        assert "#EXT-X-ENDLIST" in (await b.http.get(url)).text

        async def gone() -> bool:
            return (await b.http.get(url)).status_code == 404

        await until(gone, "the stream is not there any more")
        assert (await b.http.post("/api/streams", json={"id": "s", "source": SOURCE})).status_code == 201
        await until(lambda: b.placement.workers, "another of its name runs at b")


async def test_all_about_a_stream_is_asked_at_any_gateway():
    """And what a viewer has at one of them, at another."""
    async with cluster(3, limits={"max_viewers_per_stream": 1}) as (a, b, c):
        (listed,) = (await b.http.get("/api/streams")).json()
        shown = (await b.http.get("/api/streams/s")).json()
        assert (shown["id"], shown["created"]) == ("s", listed["created"])
        changed = await b.http.patch("/api/streams/s", json={"priority": 3})
        assert changed.status_code == 200
        assert (await b.http.post("/api/streams/s/move")).json()["lossless"] is False
        refused = await b.http.patch("/api/streams/s", json={"id": "t"})
        assert refused.status_code == 422
        assert refused.headers["Content-Type"] == "application/problem+json"
        sdp = {"Content-Type": "application/sdp"}
        assert (await b.http.post("/whip/s", content=CHROMIUM_OFFER, headers=sdp)).status_code == 409
        picture = await b.http.get("/api/streams/s/snapshot.jpg", timeout=20)
        assert picture.content[:2] == b"\xff\xd8"
        assert "s" not in b.app._streams, "none of that needs its packets"
        assert not b.app._streams.is_relayed("s")

        async with Viewer(b, "s") as viewer:
            await viewer.sees(1)
            full = await b.http.post("/whep/s", content=CHROMIUM_OFFER, headers=sdp)
            assert full.status_code == 503
            assert "max_viewers_per_stream=1" in full.json()["detail"]
            session = viewer.location.rpartition("/")[2]
            for one in (a, b, c):
                seen = await one.http.get(f"/api/streams/s/viewers/{session}")
                assert seen.json()["rendition"] == "upscaled"
            url, media = await playlist(b)
            for one in (a, c):
                there = Media.parse((await one.http.get(url, timeout=20)).text)
                assert there.numbered().items() & media.numbered().items(), "the playlist of b"
            assert (await c.http.delete(viewer.location)).status_code == 200
            await until(lambda: not b.peers(), "its session has ended")
        assert (await b.http.get("/api/streams/none")).status_code == 404
        assert (await b.http.get("/whep/s/" + "0" * 16 + ".x")).status_code == 405
        assert (await b.http.delete("/whep/s/" + "0" * 16 + ".x")).status_code == 404


async def test_a_path_signed_at_one_gateway_holds_at_any():
    async with cluster(2, **tokens(one=["publish:*", "view:*"], other=["view:t"], camera=["publish:s"])) as (
        a,
        b,
    ):
        made = {"id": "s", "source": SOURCE}
        assert (await a.http.post("/api/streams", json=made, headers=bearer("one"))).status_code == 201
        for nobody in ({}, bearer("other"), bearer("wrong"), bearer("camera")):
            assert (await b.http.get("/hls/s/index.m3u8", headers=nobody)).status_code in (401, 403)
        assert (await b.http.get("/hls/s/1999999999.AAAA/index.m3u8")).status_code == 403
        assert not b.app._streams.is_relayed("s"), "a stranger causes nothing"
        signed = await b.http.post("/api/streams/s/hls-path", headers=bearer("one"))
        path = signed.json()["url"].removeprefix("/hls/").removesuffix("/index.m3u8")
        for served in (a, b):
            _, media = await playlist(served, path)
            assert media.entries


async def test_nobody_else_subscribes(monkeypatch, caplog):
    """Nor does a home that can't be had: that is said, and tried again; other streams don't notice."""
    caplog.set_level(logging.INFO)
    async with cluster(2, log={"access": True}) as (a, b):
        fleet = b.app._fleet
        await fleet.look()
        ticket = await fleet.ticket("s")
        shown = repr((fleet._view, ticket))
        assert not any(repr(secret) in shown for secret in (fleet._view.secret, ticket.secret))
        with pytest.raises(HostUnreachable, match="its secret is not that of the cluster's gateways"):
            await subscribe(forged(ticket, secret=bytes(32)), "s")
        with pytest.raises(HostUnreachable, match="its certificate is"):
            await subscribe(forged(ticket, fingerprint="0" * 64), "s")
        with another_version(monkeypatch), pytest.raises(HostUnreachable, match=r"the gateway 0\.0\.9"):
            await subscribe(ticket, "s")
        with pytest.raises(HostUnreachable, match="stream 't' is not at home here"):
            await subscribe(ticket, "t")
        # What b relays it passes on to nobody: there are no loops.
        async with Viewer(b, "s") as viewer:
            await viewer.sees(1)
            at_b = record_of(b).gateways[fleet.id].door
            to_b = forged(ticket, port=at_b.port, fingerprint=at_b.fingerprint)
            with pytest.raises(HostUnreachable, match="stream 's' is not at home here"):
                await subscribe(to_b, "s")
            forward = a.app.relaying._forward
            mark = {"livesr-forwarded": f"192.0.2.1 {forward._proof('192.0.2.1')}"}
            twice = await b.http.get("/api/streams/s", headers=mark)
            assert twice.status_code == 503
            assert "from one home to another" in twice.json()["detail"]
            held = await b.http.get(f"/hls/s/~{a.app._fleet.id}/media.m3u8", headers=mark, timeout=20)
            _, own = await playlist(b)
            names = own.numbered().items()
            assert Media.parse(held.text).numbered().items() & names, "b itself has answered"
            mark = {"livesr-forwarded": "192.0.2.7 of nobody"}
            assert (await b.http.get("/api/streams/s", headers=mark)).status_code == 200
    clients = {request["client"] for request in events(caplog, "request")}
    assert "192.0.2.1" in clients, "for whom it was passed on"
    assert "192.0.2.7" not in clients


async def test_a_gateway_that_is_silent_holds_up_no_other(monkeypatch):
    """Nor, for longer than one may try, those of its streams that are at home elsewhere by then."""
    monkeypatch.setattr(remote, "CONNECT_TIMEOUT_S", 1.0)
    monkeypatch.setattr(remote, "_HELLOS_AT_ONCE", 1)
    visitors = []

    async def silent(reader, writer) -> None:
        visitors.append(writer)
        await reader.read()
        await reader.read()
        writer.close()
        visitors.remove(writer)

    async with cluster(2) as (_, b), await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        ticket = await b.app._fleet.ticket("s")
        away = forged(ticket, port=server.sockets[0].getsockname()[1])
        began_s = time.monotonic()
        waiting = [asyncio.create_task(subscribe(away, "s")) for _ in range(3)]
        await until(lambda: visitors, "the first one tries")
        await (await subscribe(ticket, "s")).stop()
        assert not any(task.done() for task in waiting)
        said = await asyncio.gather(*waiting, return_exceptions=True)
        assert all("can't be reached: no answer within 1 s" in str(exc) for exc in said)
        assert time.monotonic() - began_s < len(waiting), "not one after the other"
        await until(lambda: not visitors, "it is alone")


async def test_a_home_that_is_away_is_said(monkeypatch):
    monkeypatch.setattr(hls, "FIRST_SEGMENT_TIMEOUT_S", 0.1)
    monkeypatch.setattr(relays, "_FIRST_PICTURE_S", 0.1)
    async with cluster(2) as (a, b):
        await a.app.relaying._subscriptions.close()
        waiting = await b.http.get("/hls/s/index.m3u8", timeout=20)
        assert waiting.status_code == 503
        assert "starting" in waiting.json()["detail"]
        relayed = b.app._streams._relayed["s"][0]
        await until(lambda: f"the gateway {a.base} can't be reached" in relayed.reason, "why")
        record_of(b).gateways[a.app._fleet.id] = Member(url=f"http://127.0.0.1:{free_port()}")
        gone = await b.http.get("/api/streams/s")
        assert gone.status_code == 503
        assert "can't be reached" in gone.json()["detail"]
        assert gone.headers["Retry-After"] == "1"


def record_of(served: Gateway):
    return served.app._fleet._view


async def test_a_slow_gateway_skips_to_the_next_key_frame():
    dropped, asked = [], []
    subscriber = Subscriber(on_need_keyframe=lambda: asked.append(1), on_drop=dropped.append)
    subscriber.watch(["upscaled"])
    subscriber.video(video(0, b"delta", False))
    assert await subscriber.next(0.01) == [], "it begins with a key frame"
    for number in range(64):
        subscriber.video(video(number, b"x", number == 0))
    subscriber.say(opened())
    subscriber.video(video(64, b"x", False))
    assert dropped == [64]
    assert len(asked) == 2, "as it began, and now"
    assert await subscriber.next(1.0) == [opened()]
    subscriber.video(video(65, b"x", False))
    subscriber.video(video(66, b"x", True))
    assert [packet.pts for packet in await subscriber.next(1.0)] == [66]
