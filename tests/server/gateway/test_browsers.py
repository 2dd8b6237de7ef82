"""What other sites can't do through a visitor's browser: rebinding, reading, embedding."""

import re

import httpx
import pytest

from server.gateway.app import WEB, create_app
from server.gateway.figures.metrics import Metrics
from server.settings import Settings
from tests.server.gateway.scripted_gateway import gateway
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement

EVIL = {"Origin": "https://evil.example"}


def quiet() -> ScriptedPlacement:
    return ScriptedPlacement(Script(live=False))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("evil.example:8080", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("[evil", 421),
        ("video.example.com.evil.example", 421),
        ("localhost:8080", 200),
        ("LOCALHOST.", 200),
        ("192.0.2.7:8080", 200),
        ("[2001:db8::1]:8080", 200),
        ("Video.Example.com", 200),
    ],
)
async def test_only_its_own_names_reach_it(host, status):
    async with gateway(quiet(), server={"hosts": ["video.example.com"]}) as served:
        for path in ("/api/streams", "/", "/healthz", "/metrics"):
            answer = await served.http.get(path, headers={"Host": host})
            assert answer.status_code == status, path
        if status == 421:
            assert "server.hosts" in answer.json()["detail"]


async def test_any_name_where_that_is_written():
    async with gateway(quiet(), server={"hosts": ["*"]}) as served:
        answer = await served.http.get("/api/streams", headers={"Host": "whatever.example"})
        assert answer.status_code == 200


async def test_no_site_reads_anything_unless_named():
    async with gateway(quiet()) as served:
        for path in ("/api/streams", "/hls/demo/seg-1.m4s", "/metrics", "/"):
            answer = await served.http.get(path, headers=EVIL)
            assert "Access-Control-Allow-Origin" not in answer.headers, path
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin", path
        asked = {**EVIL, "Access-Control-Request-Method": "POST"}
        for path in ("/api/streams", "/whep/demo"):
            answer = await served.http.options(path, headers=asked)
            assert "Access-Control-Allow-Origin" not in answer.headers, path


async def test_a_named_site_plays_and_does_no_more():
    async with gateway(quiet(), server={"cors_origins": ["https://friend.example"]}) as served:
        friend = {"Origin": "https://friend.example"}
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        answer = await served.http.options("/whep/demo", headers={**friend, **asked})
        assert answer.headers["Access-Control-Allow-Origin"] == "https://friend.example"
        assert "authorization" in answer.headers["Access-Control-Allow-Headers"]
        answer = await served.http.get("/hls/demo/seg-1.m4s", headers=friend)
        assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        for path, origin in (("/hls/demo/seg-1.m4s", EVIL), ("/api/streams", friend)):
            assert "Access-Control-Allow-Origin" not in (await served.http.get(path, headers=origin)).headers


@pytest.mark.parametrize("text", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_form_of_another_site_starts_no_stream(text):
    """What browsers send to other sites without asking first."""
    async with gateway(quiet(), streams=()) as served:
        headers = {**EVIL, **({"Content-Type": text} if text else {})}
        answer = await served.http.post(
            "/api/streams", content='{"id": "x", "source": "synthetic:"}', headers=headers
        )
        assert answer.status_code == 422
        assert served.placement.workers == []


PATHS = ("/", "/web/app.js", "/api/streams", "/none", "/healthz", "/metrics", "/hls/none/index.m3u8")


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_has_the_headers(path):
    async with gateway(quiet()) as served:
        has_them((await served.http.get(path)).headers)
        has_them((await served.http.get(path, headers={"Host": "evil.example"})).headers)
        has_them((await served.http.get(path, headers={"X": "x" * 20_000})).headers)


async def test_a_failure_of_ours_has_them_too():
    class Broken(Metrics):
        async def exposition(self):
            raise RuntimeError("of ours")

    transport = httpx.ASGITransport(create_app(Settings(), quiet(), Broken()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.get("/metrics")
        assert answer.status_code == 500
        has_them(answer.headers)


def has_them(headers: httpx.Headers) -> None:
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] in ("no-store", "no-cache")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_has_no_script_or_style_in_itself():
    text = (WEB / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))
    for path in WEB.glob("*.js"):
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(", path.read_text()), path
