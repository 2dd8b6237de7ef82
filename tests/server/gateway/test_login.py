"""The page asks for a token where there are some, plays with it, and leaves it nowhere."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from selenium.webdriver.common.by import By

from tests.conftest import missing_peer
from tests.peers.browser import Page, chromium
from tests.peers.service import until
from tests.server.gateway.scripted_gateway import Gateway, gateway
from tests.server.gateway.scripted_gateway import until as until_async
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement
from tests.server.gateway.test_auth import EVERY_SCOPE, bearer

SIZE = "160 × 120"


@asynccontextmanager
async def browsing() -> AsyncIterator[tuple[Gateway, Page]]:
    """A gateway that lets in by token, and Chromium on no page yet."""
    paths = [shutil.which(name) or missing_peer(name, "apt-get install chromium chromium-driver")
             for name in ("chromium", "chromedriver")]  # fmt: skip
    short = ScriptedPlacement(Script(gop_s=1.0))
    async with gateway(short, hls={"segment_s": 1.0}, **EVERY_SCOPE) as served:
        served.http.headers.update(bearer("admin"))
        await served.in_state("running")
        browser = chromium(*paths, served.base + "/")
        page = await asyncio.to_thread(browser.__enter__)
        try:
            yield served, page
        finally:
            await asyncio.to_thread(browser.__exit__, None, None, None)


def logged_in(page: Page) -> bool:
    return page.find("#logout").is_displayed()


def kept(page: Page) -> str:
    """All that the browser holds beyond this tab, and where it has been."""
    return str(page.run("return [document.cookie, {...localStorage}, location.href, document.referrer]"))


def asks_for_a_token(page: Page) -> None:
    until_shown(page, "#login-dialog", True)
    assert not page.find("#stream").is_displayed()
    assert page.driver.find_elements(By.CSS_SELECTOR, "#streams li") == []


def until_shown(page: Page, selector: str, shown: bool) -> None:
    until(lambda: page.find(selector).is_displayed() == shown, f"{selector} is shown: {shown}")


async def test_a_token_is_asked_for_and_plays():
    def visit(page: Page) -> None:
        page.open("demo")
        asks_for_a_token(page)
        page.find("#login-token").send_keys("wrong\ue007")
        until(lambda: "none of the settings'" in page.text("#login-error"), "the server's words")
        page.find("#login-token").clear()
        page.find("#login-token").send_keys("viewer\ue007")
        page.plays(SIZE)
        assert page.fact("player", "over") == "WebRTC"
        assert logged_in(page)
        page.find("[value=hls] + span").click()
        until(lambda: page.fact("player", "over").startswith("HLS"), "it plays over HLS")
        page.plays(SIZE)
        assert "viewer" not in kept(page)
        assert not [url for url in page.requests("") if "viewer" in url.replace("/viewers/", "/")]
        page.find("#logout").click()
        asks_for_a_token(page)
        assert page.run("return sessionStorage.length") == 0

    async with browsing() as (_, page):
        await asyncio.to_thread(visit, page)


async def test_a_token_in_the_address_is_taken_out_of_it():
    def visit(page: Page) -> None:
        page.open("token=viewer")
        page.plays(SIZE)
        assert page.driver.current_url.endswith("#demo")
        history = page.driver.execute_cdp_cmd("Page.getNavigationHistory", {})
        assert "token" not in str([entry["url"] for entry in history["entries"]]), history
        assert "viewer" not in kept(page)
        page.driver.refresh()
        page.plays(SIZE)

        page.driver.switch_to.new_window("tab")
        page.open()
        asks_for_a_token(page)

    async with browsing() as (_, page):
        await asyncio.to_thread(visit, page)


async def test_leaving_the_page_ends_the_viewer():
    async with browsing() as (served, page):
        await asyncio.to_thread(page.open, "token=viewer")
        await asyncio.to_thread(page.plays, SIZE)
        assert (await served.stream())["viewers"]["whep"] == 1
        await asyncio.to_thread(page.open, "none")

        async def nobody() -> bool:
            return (await served.stream())["viewers"]["whep"] == 0

        await until_async(nobody, "the session is ended")


async def test_what_the_token_does_not_allow_is_said():
    def visit(page: Page) -> None:
        page.open("token=viewer")
        page.plays(SIZE)
        page.find("#delete").click()
        page.find("#delete-form [type=submit]").click()
        until(lambda: "publish:demo" in page.text("#delete-error"), "which scope is missing")

    async with browsing() as (_, page):
        await asyncio.to_thread(visit, page)
