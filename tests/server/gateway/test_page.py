"""What the page says of super-resolution while bicubic stands in, in a real browser."""

import asyncio
import shutil

from server.wire.messages import EngineLoad
from tests.conftest import missing_peer
from tests.peers.browser import Page, chromium
from tests.server.gateway.scripted_gateway import gateway, until
from tests.server.gateway.scripted_media import opened
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement


def load(state: str, detail: str) -> EngineLoad:
    return EngineLoad(state=state, model="awsrn-live-x2", width=80, height=60, elapsed_s=35.2, detail=detail)


async def reads(page: Page, selector: str, text: str) -> None:
    async def so() -> bool:
        return await asyncio.to_thread(page.text, selector) == text

    await until(so, f"{selector} reads {text!r}")


async def test_the_indicator_says_whether_the_network_upscales_and_why_not():
    paths = [shutil.which(name) or missing_peer(name, "apt-get install chromium chromium-driver")
             for name in ("chromium", "chromedriver")]  # fmt: skip
    async with gateway(ScriptedPlacement(Script(audio=False))) as served:
        await served.in_state("running")
        browser = chromium(*paths, served.base + "/")
        page = await asyncio.to_thread(browser.__enter__)
        try:
            await asyncio.to_thread(page.open, "demo")
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
            assert await asyncio.to_thread(page.console) == []
        finally:
            await asyncio.to_thread(browser.__exit__, None, None, None)
