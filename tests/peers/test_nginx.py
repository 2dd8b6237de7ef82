"""nginx before the service, by the configuration that ships: HTTP/2, low-latency HLS, events, the page."""

import asyncio
import itertools
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.conftest import ROOT
from tests.peers.browser import chromium
from tests.peers.front import HINT, NAME, PART, SERVER, SOURCE, Front, end_of, shown
from tests.peers.service import FOR_PEERS, Service, running, until
from tests.ports import free_port


def configure(folder: Path, service: Service, port: int) -> Path:
    """The shipped configuration, with the places of a test in it."""
    text = (ROOT / "deploy/nginx/livesr.conf").read_text()
    for here, there in {
        "127.0.0.1:8080": service.url.removeprefix("http://").rstrip("/"),
        "listen [::]:443 ssl http2;": "",
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/ssl/livesr": str(folder),
        "/var/cache/nginx/livesr": str(folder / "cache"),
    }.items():
        assert here in text
        text = text.replace(here, there)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder / kind};\n" for kind in kinds)
    config = folder / "nginx.conf"
    config.write_text(
        f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log;\ndaemon off;\nworker_processes 1;\n"
        + ("user root;\n" if folder.owner() == "root" else "")
        + f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{text}}}\n"
    )
    return config


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str, str], str]) -> Iterator[Front]:
    nginx, curl = program("nginx", "nginx"), program("curl", "curl")
    openssl = program("openssl", "openssl")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    key, certificate = folder / "privkey.pem", folder / "fullchain.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", f"/CN={NAME}"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    base = FOR_PEERS.replace("[limits]", "[limits]\nmax_listeners_per_address = 1")
    with running(folder, server=SERVER, base=base) as service:
        config = configure(folder, service, port)
        process = subprocess.Popen([nginx, "-e", str(folder / "error.log"), "-c", str(config)])
        with shown(Front(service, port, curl, folder), process, folder / "error.log") as front:
            yield front


def test_a_reload_waits_and_the_hinted_part_comes_over_http_2(front: Front) -> None:
    first = front.get("hls/live/media.m3u8")
    assert (first.status, first.version) == (200, "2")
    msn, part = end_of(first.text)
    for _ in range(4):
        reloaded = front.get(f"hls/live/media.m3u8?_HLS_msn={msn}&_HLS_part={part}")
        assert end_of(reloaded.text) > (msn, part)
        msn, part = end_of(reloaded.text)
        assert "cache-control: max-age=" in reloaded.headers, "what was waited for stays true"
        assert "x-cache" not in reloaded.headers
        hinted = front.get("hls/live/" + HINT.search(reloaded.text)[1])
        assert (hinted.status, hinted.version, hinted.body[4:8]) == (200, "2", b"moof")


def test_a_part_that_many_ask_for_is_fetched_once_and_makes_nobody_late(front: Front) -> None:
    def many() -> tuple[float, float]:
        """How often a new part was fetched, and how long the last of its players took in seconds."""
        msn, part = end_of(front.get("hls/live/media.m3u8").text)
        text = front.get(f"hls/live/media.m3u8?_HLS_msn={msn}&_HLS_part={part}").text
        name, before = PART.findall(text)[-1], front.fetched()
        command = front.command(f"hls/live/{name}", "-Z", "--parallel-immediate")
        urls = [command[-1]] * 11
        options = ["-o", "/dev/null"] * 12
        written = ["-w", "%{http_code} %{time_total}\n"]
        done = subprocess.run([*command, *urls, *options, *written], capture_output=True, timeout=60)
        answers = [line.split() for line in done.stdout.decode().splitlines()]
        assert [status for status, _ in answers] == ["200"] * 12
        return front.fetched() - before, max(float(took_s) for _, took_s in answers)

    # A busy machine may take longer than nginx lets the others wait.
    until(lambda: many()[0] == 1, "twelve players cause one request")
    until(lambda: many()[1] < 0.3, "nobody waits for the 0.5 s after which nginx looks by itself")

    name = PART.findall(front.get("hls/live/media.m3u8").text)[-1]
    front.get(f"hls/live/{name}")
    kept = front.get(f"hls/live/{name}")
    assert "x-cache: hit" in kept.headers
    assert "immutable" in kept.headers


@contextmanager
def cached(nginx: str, folder: Path, service: str, token: str = "secret") -> Iterator[str]:
    """The URL of the chart's cache before a service, with the places of a test in it."""
    text, port = (ROOT / "deploy/helm/livesr/files/hls-cache.conf").read_text(), free_port()
    for here, there in {
        "${LIVESR_SERVICE}": service,
        "${LIVESR_TOKEN}": token,
        "listen 8080": f"listen 127.0.0.1:{port}",
        "/tmp/": f"{folder}/",
        "/var/cache/nginx/livesr": f"{folder}/kept",
        "worker_processes auto": "worker_processes 1" + ("; user root" if folder.owner() == "root" else ""),
    }.items():
        assert here in text
        text = text.replace(here, there)
    config = folder / "hls-cache.conf"
    config.write_text(text)
    process = subprocess.Popen([nginx, "-e", str(folder / "cache.log"), "-c", str(config)])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/") as http:
            until(lambda: _is_there(http), "the cache answers")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(15)


def _is_there(http: httpx.Client) -> bool:
    try:
        return http.get("healthz").status_code == 200
    except httpx.TransportError:
        return False


async def test_an_audience_behind_the_cache_costs_as_much_as_a_player(
    front: Front, program: Callable[[str, str], str], tmp_path: Path
) -> None:
    service = front.service.url.removeprefix("http://").rstrip("/")
    with cached(program("nginx", "nginx"), tmp_path, service) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:

            async def all_ask(path: str) -> list[httpx.Response]:
                """So many players, of two kinds, each with a query of its own."""
                kinds = itertools.cycle([{"Accept-Encoding": "gzip"}, {"Origin": "https://site.example"}])
                urls = [f"hls/live/{path}{'&' if '?' in path else '?'}player={n}" for n in range(20)]
                calls = [http.get(url, headers=next(kinds)) for url in urls]
                return await asyncio.gather(*calls)

            msn, part = end_of((await http.get("hls/live/media.m3u8")).text)
            before = front.fetched()
            reloads = await all_ask(f"media.m3u8?_HLS_msn={msn}&_HLS_part={part}")
            (text,) = {answer.text for answer in reloads}
            newest = PART.findall(text)[-1]
            segment = [line for line in text.splitlines() if line and not line.startswith("#")][-1]
            answers = await asyncio.gather(*(all_ask(name) for name in (newest, segment, "seg-none.m4s")))
            statuses = [{answer.status_code for answer in same} for same in (reloads, *answers)]
            assert statuses == [{200}, {200}, {200}, {404}]
            assert front.fetched() - before == 3, "the reload, the part and the segment, each once"
            assert (await http.get("hls/live/index.m3u8?from=-60")).status_code == 404
            assert (await http.get("api/streams")).status_code == 404


def test_the_cache_asks_with_its_own_token_and_keeps_what_it_gets(
    program: Callable[[str, str], str], tmp_path: Path
) -> None:
    asked: list[str | None] = []

    class Private(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_response(200)
            self.send_header("Cache-Control", "private, no-cache")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Private) as server:
        Thread(target=server.serve_forever).start()
        try:
            upstream = f"127.0.0.1:{server.server_port}"
            with cached(program("nginx", "nginx"), tmp_path, upstream) as url:
                for name in ("seg-1.m4s", "~0123456789abcdef/seg-1.m4s", "~0123456789abcdef/media.m3u8"):
                    for _ in range(3):
                        assert httpx.get(f"{url}hls/live/{name}", headers={"Authorization": "x"}).is_success
        finally:
            server.shutdown()
    assert asked == 3 * ["Bearer secret"]


def test_playlists_are_compressed_and_whole(front: Front) -> None:
    plain = front.get("hls/live/index.m3u8")
    packed = front.get("hls/live/index.m3u8", "--compressed")
    assert "content-encoding: gzip" in packed.headers
    assert packed.text.startswith("#EXTM3U")
    assert "content-encoding" not in plain.headers


def listening(front: Front, *options: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(front.command("api/events", "-N", *options), stdout=subprocess.PIPE)


def test_events_come_as_they_happen_and_are_limited_by_the_listeners_address(front: Front) -> None:
    at_home, forged = ("--interface", "127.0.0.2"), ("-H", "X-Forwarded-For: 203.0.113.7")
    listener = listening(front, *at_home)
    try:
        assert listener.stdout is not None
        lines = iter(listener.stdout.readline, b"")
        assert next(line for line in lines if line.startswith(b"event:")) == b"event: state\n"
        with front.service.stream("new", SOURCE):
            data = (json.loads(line[5:]) for line in lines if line.startswith(b"data:"))
            assert next(event for event in data if event["stream"] == "new")
        again = ("-o", "/dev/null", "--max-time", "2")
        assert front.get("api/events", *at_home, *forged).status == 429, "one from each address"
        told = subprocess.run(
            front.command("api/events", "-w", "%{http_code}", "--interface", "127.0.0.3", *again),
            capture_output=True,
            timeout=60,
        )
        assert told.stdout == b"200"
    finally:
        listener.kill()
        listener.communicate()


def test_names_are_those_of_the_settings(front: Front) -> None:
    assert front.get("api/streams", "-H", f"Host: {NAME}").status == 200
    assert front.get("api/streams", "-H", "Host: elsewhere.example").status == 421


def test_the_page_plays_through_it(front: Front, program: Callable[[str, str], str]) -> None:
    executable, driver = program("chromium", "chromium"), program("chromedriver", "chromium-driver")
    with chromium(executable, driver, front.url) as page:
        page.open("live")
        page.plays("320 × 180")
        assert page.fact("player", "over") == "WebRTC"
        script = "return performance.getEntriesByType('resource').map(entry => entry.nextHopProtocol)"
        assert "h2" in page.run(script)
