"""The page in a real browser, with a scripted worker: what it says, and what it draws beside each other."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator

import numpy as np

from loadtest.numbered_source import read
from server.wire.messages import EngineLoad
from tests.conftest import missing_peer
from tests.peers.browser import Page, chromium
from tests.server.gateway.scripted_gateway import Gateway, gateway, until
from tests.server.gateway.scripted_media import opened
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement


def load(state: str, detail: str) -> EngineLoad:
    return EngineLoad(state=state, model="awsrn-live-x2", width=80, height=60, elapsed_s=35.2, detail=detail)


async def reads(page: Page, selector: str, text: str) -> None:
    async def so() -> bool:
        return await asyncio.to_thread(page.text, selector) == text

    await until(so, f"{selector} reads {text!r}")


@contextlib.asynccontextmanager
async def on_page(script: Script) -> AsyncIterator[tuple[Gateway, Page]]:
    """Chromium on the page of a gateway whose stream runs."""
    paths = [shutil.which(name) or missing_peer(name, "apt-get install chromium chromium-driver")
             for name in ("chromium", "chromedriver")]  # fmt: skip
    async with gateway(ScriptedPlacement(script)) as served:
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
            script.plain_lag_s = lag_s
            seen: set[int] = set()
            while len(seen) < 40:
                pairs = await compared(page, 60)
                assert [left for left, _ in pairs] == [right for _, right in pairs]
                seen |= {left for left, _ in pairs}
