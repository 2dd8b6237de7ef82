"""The page in a real browser, with a scripted worker: what it says, and what it draws beside each other."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator

import numpy as np
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from loadtest.numbered_source import read
from server.wire.messages import EngineLoad
from tests.conftest import ROOT, missing_peer
from tests.peers import service as peers
from tests.peers.browser import Page, chromium
from tests.server.gateway.scripted_gateway import Gateway, gateway, until
from tests.server.gateway.scripted_media import FPS, opened
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement


def load(state: str, detail: str) -> EngineLoad:
    return EngineLoad(state=state, model="awsrn-live-x2", width=80, height=60, elapsed_s=35.2, detail=detail)


NOT_ARRIVING = (
    "No new picture. The server sends on, but it does not arrive: your network is too slow or interrupted."
)


async def reads(page: Page, selector: str, text: str) -> None:
    async def so() -> bool:
        # What isn't there yet comes; what has just been drawn anew is found again.
        with contextlib.suppress(NoSuchElementException, StaleElementReferenceException):
            return await asyncio.to_thread(page.text, selector) == text
        return False

    await until(so, f"{selector} reads {text!r}")


@contextlib.asynccontextmanager
async def on_page(script: Script, **tables) -> AsyncIterator[tuple[Gateway, Page]]:
    """Chromium on the page of a gateway whose stream runs."""
    paths = [shutil.which(name) or missing_peer(name, "apt-get install chromium chromium-driver")
             for name in ("chromium", "chromedriver")]  # fmt: skip
    async with gateway(ScriptedPlacement(script), **tables) as served:
        await served.in_state("running")
        browser = chromium(*paths, served.base + "/")
        page = await asyncio.to_thread(browser.__enter__)
        try:
            await asyncio.to_thread(page.open, "demo")
            yield served, page
            assert await asyncio.to_thread(page.console) == []
        finally:
            await asyncio.to_thread(browser.__exit__, None, None, None)


async def test_the_indicator_says_whether_the_network_upscales_and_why_not():
    async with on_page(Script(audio=False)) as (served, page):
        await reads(page, "#sr", "On\n80 × 60 → 160 × 120")
        await reads(page, "#sr-why", "")

        served.worker.say(opened(model="bicubic", backend="bicubic", parity_db=None))
        served.worker.say(load("loading", "building the engine"))
        await reads(page, "#sr", "Off\n80 × 60 → 160 × 120")
        await reads(
            page,
            "#sr-why",
            "Bicubic until awsrn-live-x2 is there: loading for 35 s (building the engine)",
        )
        assert await asyncio.to_thread(page.fact, "sr", "parity") == "none: bicubic"

        served.worker.say(load("failed", "TensorRT found no kernel"))
        await reads(page, "#sr-why", "Bicubic: awsrn-live-x2 can't be had. TensorRT found no kernel")

        served.worker.say(opened())
        served.worker.say(load("ready", ""))
        await reads(page, "#sr-word", "On")
        await reads(page, "#sr-why", "")


# What is on the canvas, again and again while the page is drawn: the middle of each of the 16 bars, upper and
# lower half.
SAMPLE = """
    const [count, done] = arguments;
    const context = new OffscreenCanvas(16, 4).getContext("2d", { willReadFrequently: true });
    const samples = [];
    const sample = () => {
      const { width, height } = compared;
      for (let bar = 0; bar < 16; bar++)
        for (const [y, at] of [[1, 0], [3, 2]])
          context.drawImage(compared, (bar + 0.5) * width / 16, y * height / 4, 1, 1, bar, at, 1, 1);
      const { data } = context.getImageData(0, 0, 16, 4);
      samples.push([...data.filter((_, at) => at % 4 === 1)]);
      if (samples.length < count) requestAnimationFrame(sample);
      else done(samples);
    };
    requestAnimationFrame(sample);
"""


async def compared(page: Page, count: int) -> list[tuple[int, int]]:
    """The numbers left and right of the slider, of so many pictures as they are drawn."""
    samples = await asyncio.to_thread(page.driver.execute_async_script, SAMPLE, count)
    pictures = (np.array(sample, np.uint8).reshape(4, 16)[[0, 2]] for sample in samples)
    numbers = [read(picture.repeat(4, axis=0).repeat(8, axis=1)) for picture in pictures]
    assert None not in numbers, "every picture is whole"
    return [divmod(number, 256) for number in numbers]


async def test_the_slider_compares_two_renditions_of_the_same_frame():
    script = Script(width=320, height=180, numbered=True, audio=False)
    async with on_page(script) as (_, page):
        await asyncio.to_thread(page.plays, "320 × 180")
        await asyncio.to_thread(page.find("#compare").click)
        drawn = page.find("#compared").is_displayed
        await until(lambda: asyncio.to_thread(drawn), "both are drawn together")
        for lag_s in (0.0, 0.5):
            script.source_lag_s = lag_s
            seen: set[int] = set()
            while len(seen) < 40:
                pairs = await compared(page, 60)
                assert [left for left, _ in pairs] == [right for _, right in pairs]
                seen |= {left for left, _ in pairs}
        script.source_lag_s = 1e3
        await reads(page, "#still", NOT_ARRIVING)


async def test_the_menu_chooses_a_rendition():
    async with on_page(Script(audio=False)) as (_, page):

        def choose() -> None:
            page.plays("160 × 120")
            menu = Select(page.find("#rendition"))
            assert [option.text for option in menu.options] == [
                "Auto",
                "Upscaled · 160 × 120 · 0.5 Mbit/s",
                "90p · 120 × 90 · 0.4 Mbit/s",
                "Source · 80 × 60 · 0.3 Mbit/s",
            ]
            menu.select_by_value("90p")
            page.plays("120 × 90")
            peers.until(lambda: page.fact("player", "rendition") == "90p", "the server says so")
            page.find("#compare").click()
            peers.until(page.find("#compared").is_displayed, "it is compared")
            assert page.text(".split-tag.left") == "Source 80 × 60"
            assert page.text(".split-tag.right") == "90p 120 × 90"
            menu.select_by_value("")
            page.plays("160 × 120")
            assert page.text(".split-tag.right") == "Upscaled 160 × 120"

        await asyncio.to_thread(choose)


async def test_a_picture_that_stands_still_says_why(monkeypatch):
    script = Script(width=320, height=180, numbered=True, audio=False)
    async with on_page(script) as (served, page):
        await asyncio.to_thread(page.plays, "320 × 180")
        await reads(page, "#still", "")

        script.silent = True
        await reads(page, "#still", "No new picture. The source sends nothing.")
        await reads(page, "#said", "No new picture. The source sends nothing.")
        script.silent = False
        await reads(page, "#still", "")

        (peer,) = served.peers()
        with monkeypatch.context() as network:
            network.setattr(peer._dtls, "send", lambda packets: None)
            await reads(page, "#still", NOT_ARRIVING)
            page.run("window.asked = window.fetch; window.fetch = () => new Promise(() => {})")
            await reads(page, "#still", "No new picture. The server does not answer.")
        page.run("window.fetch = window.asked")
        await reads(page, "#still", "")


async def test_seconds_behind_live_count_what_the_browser_holds_back():
    async with on_page(Script(width=320, height=180, numbered=True, audio=False)) as (served, page):
        await asyncio.to_thread(page.plays, "320 × 180")

        async def behind_s() -> tuple[float, float]:
            """As the page says, and as the picture does."""
            said = await asyncio.to_thread(page.fact, "player", "behind")
            shown, made = await asyncio.to_thread(page.luma, "#upscaled"), served.worker.frames
            number = read(shown)
            assert number is not None
            return float(said.removesuffix(" s")), (made - number % 256) % 256 / FPS

        async def agree(least_s: float, most_s: float) -> bool:
            figures = await behind_s()
            return all(least_s <= figure <= most_s for figure in figures)

        await until(lambda: agree(0.0, 0.3), "it is close to live")
        (peer,) = served.peers()
        peer.path.hold_s, peer.path._held_s = 0.8, float("inf")
        await until(lambda: agree(0.7, 1.2), "and as much later as it is held back")


# The page's own words for a stream that is pushed to two places; and how many colours its thumbnail has.
PUSHED = """
    const done = arguments[0];
    const push = [true, false].map((connected) => ({ target: "srt://a", connected, reason: "no route" }));
    import("/web/facts.js").then(({ outputs }) =>
      done(outputs({ recording: null, push }).map(({ word, text, good }) => [word, text, good])));
"""
COLOURS = """
    const canvas = document.querySelector("#streams canvas");
    return new Set(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data).size;
"""


async def test_the_list_has_a_thumbnail_and_says_what_becomes_of_the_stream(tmp_path, monkeypatch):
    free = [1 << 40]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        "server.gateway.record.archive.shutil.disk_usage", lambda _: usage._replace(free=free[0])
    )
    tables = {"recording": {"folder": str(tmp_path)}, "defaults": {"record": True}}
    async with on_page(Script(audio=False, gop_s=1.0), hls={"segment_s": 1.0}, **tables) as (_, page):
        await asyncio.to_thread(page.driver.set_window_size, 1280, 900)
        await reads(page, "#streams .outputs", "Recorded")
        await until(lambda: asyncio.to_thread(lambda: page.run(COLOURS) > 20), "the picture is there")
        assert "On, since" in await asyncio.to_thread(page.text, "#outputs-facts")
        free[0] = 0
        await reads(page, "#streams .outputs", "Not recorded")

        async def why() -> bool:
            return "the disk has 0 MB left" in await asyncio.to_thread(page.text, "#outputs-facts")

        await until(why, "and why")
        assert await asyncio.to_thread(page.driver.execute_async_script, PUSHED) == [
            ["Pushed", "Connected", True],
            ["Push fails", "Not connected: no route", False],
        ]
        asked = [url for url in await asyncio.to_thread(page.requests, "api/") if "snapshot" in url]
        assert len(asked) < 5, "it is asked for now and then"


AXE = ROOT / "node_modules/axe-core/axe.min.js"
VIOLATIONS = """
    const done = arguments[0];
    axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) =>
      done(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`)));
"""
FOCUSED = """
    const { activeElement: at } = document;
    const ring = getComputedStyle(at.type === "radio" ? at.nextElementSibling : at).outlineStyle;
    return [at.id || at.value || at.textContent.trim(), ring];
"""


async def test_the_page_is_for_keyboards_screen_readers_and_phones(tmp_path):
    if not AXE.exists():
        missing_peer("axe-core", "npm ci")
    tables = {"recording": {"folder": str(tmp_path), "free_bytes": 0}, "defaults": {"record": True}}
    async with on_page(Script(), **tables) as (_, page):

        def violations() -> list[str]:
            page.run(AXE.read_text())
            return page.driver.execute_async_script(VIOLATIONS)

        def press(*keys: str) -> None:
            ActionChains(page.driver).send_keys(*keys).perform()

        def use() -> None:
            page.plays("160 × 120")
            assert violations() == []
            reached = []
            while not reached or reached[-1] != "delete":
                press(Keys.TAB)
                name, ring = page.run(FOCUSED)
                assert ring not in ("none", ""), f"the focus is seen on {name}"
                reached.append(name)
                if name == "compare":
                    press(Keys.ENTER)
            assert reached[-6:] == ["mute", "compare", "whep", "rendition", "fullscreen", "delete"]
            peers.until(page.find("#compared").is_displayed, "Enter compares")
            page.run("document.querySelector('#split-at').focus()")
            press(Keys.ARROW_RIGHT)
            assert page.find("#split-at").get_attribute("aria-valuetext") == "51 % source"
            assert page.find("#compare").get_attribute("aria-pressed") == "true"
            assert violations() == []
            page.find("#add").send_keys(Keys.ENTER)
            assert page.run(FOCUSED)[0] == "add-source"
            assert violations() == []
            press(Keys.ESCAPE)
            for width, height in ((360, 640), (390, 844)):
                size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
                page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                assert page.run("return document.documentElement.scrollWidth") == width
                assert page.run("return compared.getBoundingClientRect().bottom < innerHeight")
                assert violations() == []

        await asyncio.to_thread(use)
