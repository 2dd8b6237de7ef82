"""Headless Chromium on the page: what a person would read and press."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service as Driver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.peers.service import until

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--mute-audio",
    "--allow-loopback-in-peer-connection",
    # A camera and a microphone, whom nobody asks.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


class Page:
    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self._url = url

    def open(self, stream: str = "") -> None:
        self.driver.get("about:blank")  # a change of fragment alone would load nothing
        self.driver.get(f"{self._url}#{stream}" if stream else self._url)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def run(self, script: str, *args: Any) -> Any:
        return self.driver.execute_script(script, *args)

    def fact(self, panel: str, key: str) -> str:
        """A value of the panel 'sr', 'server' or 'player'."""
        return str(
            self.run("return document.querySelector(arguments[0])?.textContent ?? ''", _fact(panel, key))
        )

    def frames_decoded(self) -> int:
        text = self.fact("player", "frames").replace(",", "")
        return int(text) if text.isdigit() else 0

    def plays(self, size: str, more: int = 10) -> None:
        """The picture has that size, and that many more frames are decoded."""
        until(lambda: self.fact("player", "size") == size, f"the picture is {size}: {self.text('main')}")
        start = self.frames_decoded()
        until(lambda: self.frames_decoded() >= start + more, f"{more} frames more than {start}")

    def requests(self, path: str) -> list[str]:
        """The addresses on this server that the page has asked for."""
        script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        return [url for url in self.run(script) if url.startswith(self._url + path)]

    def picture(self) -> np.ndarray:
        """A screenshot of what is between the player's edges, (h, w, 3)."""
        png = self.find("#stage").screenshot_as_png
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def luma(self, selector: str) -> np.ndarray:
        """The frame that a video shows now, (h, w)."""
        script = """
            const video = document.querySelector(arguments[0]);
            const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
            const context = canvas.getContext("2d");
            context.drawImage(video, 0, 0);
            const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
            return [canvas.width, canvas.height, [...data.filter((_, at) => at % 4 === 1)]];
        """
        width, height, green = self.run(script, selector)
        return np.array(green, dtype=np.uint8).reshape(height, width)

    def console(self) -> list[str]:
        """Errors since the last call, a blocked outside request among them."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def _fact(panel: str, key: str) -> str:
    return f"#{panel}-facts [data-fact={key}]"


@contextmanager
def chromium(executable: str, driver: str, url: str) -> Iterator[Page]:
    options = webdriver.ChromeOptions()
    options.binary_location = executable
    options.accept_insecure_certs = True  # the tests' own
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Chromium leaves the folder of its socket behind.
    with TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        service = Driver(driver, env={**os.environ, "TMPDIR": folder})
        chrome = webdriver.Chrome(options=options, service=service)
        try:
            yield Page(chrome, url)
        finally:
            chrome.quit()
