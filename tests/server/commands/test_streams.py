"""`livesr streams` against a gateway: what an operator types, and what the terminal shows."""

import asyncio
import contextlib
import json
from collections.abc import Callable

import pytest

from server.__main__ import main
from tests.server.gateway.scripted_gateway import Gateway, gateway, until
from tests.server.gateway.test_auth import quiet, tokens

Livesr = Callable[..., "asyncio.Future[tuple[int, str, str]]"]


@pytest.fixture
def livesr(capsys: pytest.CaptureFixture[str]) -> Livesr:
    async def run(served: Gateway, *words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = await asyncio.to_thread(main, ["streams", *words, "--url", served.base])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


async def test_streams_are_listed_shown_added_and_removed(livesr: Livesr):
    async with gateway() as served:
        await served.in_state("running")
        assert await livesr(
            served, "add", "cam", "synthetic:?fps=5", "--set", "lanes=2", "--set", "preset=fast"
        ) == (0, "cam: starting\n", "")
        await served.in_state("running", "cam")
        status, out, _ = await livesr(served, "list")
        assert status == 0
        head, *rows = out.splitlines()
        assert head.split() == ["ID", "STATE", "PICTURE", "FPS", "LATENCY", "VIEWERS", "WHY"]
        assert [row.split()[:2] for row in rows] == [["demo", "running"], ["cam", "running"]]
        assert all("->" in row for row in rows)

        _, out, _ = await livesr(served, "show", "demo")
        assert "latency      p50 " in out
        assert "viewers      0 WebRTC, 0 HLS" in out
        _, out, _ = await livesr(served, "show", "cam", "--json")
        assert json.loads(out)["id"] == "cam"
        assert served.worker.job.lanes == 2

        assert await livesr(served, "remove", "cam") == (0, "cam: removed\n", "")
        _, out, _ = await livesr(served, "list", "--json")
        assert [stream["id"] for stream in json.loads(out)] == ["demo"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "none"), "there is no stream 'none' (`livesr streams list` shows"),
        (("add", "demo", "synthetic:"), "there is a stream of that name"),
        (("add", "a b", "synthetic:"), "id"),
        (("add", "x", "synthetic:", "--set", "lanes"), "--set 'lanes': must be KEY=VALUE"),
        (("add", "x", "synthetic:", "--set", "lanes=99"), "lanes"),
        (("list", "--token-file", "/none"), "--token-file /none: can't be read"),
    ],
)
async def test_what_cannot_be_is_one_line_and_status_2(livesr: Livesr, words, said):
    async with gateway(quiet()) as served:
        status, out, err = await livesr(served, *words)
    assert (status, out) == (2, "")
    assert said in err
    assert err.startswith("livesr streams: ")
    assert err.count("\n") == 1


async def test_a_token_comes_from_a_file_or_the_environment(livesr: Livesr, tmp_path, monkeypatch):
    monkeypatch.delenv("LIVESR_TOKEN", raising=False)
    async with gateway(quiet(), **tokens(secret=["view:demo"])) as served:
        status, _, err = await livesr(served, "list")
        assert status == 2
        assert "this needs a token" in err
        assert "(set LIVESR_TOKEN, or --token-file)" in err
        (tmp_path / "token").write_text("secret\n")
        assert (await livesr(served, "list", "--token-file", str(tmp_path / "token")))[0] == 0
        monkeypatch.setenv("LIVESR_TOKEN", "secret")
        assert (await livesr(served, "list"))[0] == 0
        status, _, err = await livesr(served, "remove", "demo")
        assert (status, "(`livesr token` makes tokens" in err) == (2, True)


def test_where_nobody_listens_it_says_what_to_do(capsys):
    assert main(["streams", "list", "--url", "http://127.0.0.1:1"]) == 2
    assert "http://127.0.0.1:1/ can't be reached: Connection refused (`livesr serve` starts" in (
        capsys.readouterr().err
    )
    assert main(["streams", "list", "--url", "localhost"]) == 2
    assert "must look like http://HOST:PORT/" in capsys.readouterr().err


async def test_what_happens_is_watched_until_the_service_is_gone(capsys):
    async with gateway() as served:
        await served.in_state("running")
        watching = asyncio.create_task(
            asyncio.to_thread(main, ["streams", "watch", "cam", "--json", "--url", served.base])
        )
        told: list[dict[str, str]] = []

        async def seen(what: str) -> bool:
            told.extend(map(json.loads, capsys.readouterr().out.splitlines()))
            if what not in [event.get("state", event["event"]) for event in told]:
                # It may not have begun to listen when the first was there.
                with contextlib.suppress(KeyError):
                    body = {"id": "cam", "source": "synthetic:"}
                    await served.http.post("/api/streams", json=body)
                return False
            return True

        await until(lambda: seen("running"), "the stream runs")
        await served.http.delete("/api/streams/cam")
        await until(lambda: seen("deleted"), "the stream is deleted")
        assert {event["stream"] for event in told} == {"cam"}
    assert await watching == 2
    assert "can't be reached" in capsys.readouterr().err


class Clock:
    """Of a watch whose connections last for so long; interrupted after the last."""

    def __init__(self, *lasting_s: float) -> None:
        self.pauses_s: list[float] = []
        self._times_s = iter([time_s for lasts_s in lasting_s for time_s in (0.0, lasts_s)])
        self._most = len(lasting_s)

    def monotonic(self) -> float:
        return next(self._times_s)

    def sleep(self, pause_s: float) -> None:
        self.pauses_s.append(pause_s)
        if len(self.pauses_s) == self._most:
            raise KeyboardInterrupt


async def test_a_watch_that_ends_again_and_again_leaves_the_service_in_peace(livesr: Livesr, monkeypatch):
    clock = Clock(0, 0, 600, 0, 0, 0, 0, 0, 0, 0)
    monkeypatch.setattr("server.commands.streams.time", clock)
    monkeypatch.setattr("server.gateway.routes.events.LONGEST_S", 0.0)
    async with gateway(quiet()) as served:
        status, out, _ = await livesr(served, "watch")
    assert (status, clock.pauses_s) == (130, [1, 2, 0, 1, 2, 4, 8, 16, 30, 30])
    assert out.count("\n") == 1, "a state that is told anew is no news"
