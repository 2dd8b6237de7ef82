"""A stream's picture as JPEG: of now, made once for all who ask, and of a stream that nobody watches."""

import asyncio
import math
import time
from contextlib import nullcontext
from io import BytesIO

import httpx
import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from loadtest.numbered_source import read
from server.gateway.snapshots import jpeg, pictures, snapshots
from tests.server.gateway.hls_media import video
from tests.server.gateway.scripted_gateway import gateway, until
from tests.server.gateway.scripted_media import FPS, Encoder, opened
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement
from tests.server.gateway.test_auth import bearer, tokens

PATH = "/api/streams/demo/snapshot.jpg"
UNWATCHED = {"defaults": {"upscale_when": "watched"}}


def numbered(**script) -> ScriptedPlacement:
    return ScriptedPlacement(Script(width=320, height=180, gop_s=1.0, numbered=True, audio=False, **script))


def picture(answer: httpx.Response) -> np.ndarray:
    """(h, w), the luma."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg"), answer.text
    return np.asarray(Image.open(BytesIO(answer.content)).convert("L"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes of the pictures that are made."""
    sizes: list[tuple[int, int]] = []

    def counted(key_frame: bytes, width: int, height: int) -> bytes:
        sizes.append((width, height))
        return jpeg.to_jpeg(key_frame, width, height)

    monkeypatch.setattr(snapshots, "to_jpeg", counted)
    return sizes


async def test_it_is_the_picture_of_now_made_once_for_all(made):
    async with gateway(numbered()) as served:
        await served.in_state("running")
        await until(lambda: served.worker.frames > FPS, "a second has passed")
        answers = await asyncio.gather(*(served.http.get(PATH) for _ in range(40)))
        assert made == [(320, 180)] * len({answer.content for answer in answers})
        assert len(made) <= 2, "a key frame may have come meanwhile"
        number = read(picture(answers[0]))
        assert number is not None
        age_frames = (served.worker.frames - number % 256) % 256
        assert age_frames <= 2 * FPS, "no older than the distance of key frames, and the test itself"
        assert float(answers[0].headers["Picture-Age"]) <= age_frames / FPS + 1
        assert answers[0].headers["Cache-Control"] == "public, max-age=1"
        again = await served.http.get(PATH, headers={"If-None-Match": answers[-1].headers["ETag"]})
        assert again.status_code == (304 if again.headers["ETag"] == answers[-1].headers["ETag"] else 200)

        async def newer() -> bool:
            answer = await served.http.get(PATH, headers={"If-None-Match": answers[-1].headers["ETag"]})
            return answer.status_code == 200 and read(picture(answer)) != number

        await until(newer, "another picture")
        small = picture(await served.http.get(PATH, params={"width": 160}))
        assert (small.shape, read(small) is not None) == ((90, 160), True)
        assert picture(await served.http.get(PATH, params={"width": 4000})).shape == (180, 320)


async def test_many_sizes_decode_few_pictures(made):
    async with gateway(numbered()) as served:
        await served.in_state("running")
        await until(lambda: served.worker.frames > FPS, "a second has passed")
        began_s = time.monotonic()
        answers = await asyncio.gather(
            *(served.http.get(PATH, params={"width": width}) for width in range(16, 136))
        )
        lasted_s = time.monotonic() - began_s
        refused = [answer for answer in answers if answer.status_code != 200]
        assert {answer.status_code for answer in refused} == {429}
        assert refused[0].headers["Retry-After"] == "1"
        assert 10 <= len(made) <= 10 * (lasted_s + 2)


async def test_a_smaller_rendition_is_of_the_upscaled_one_and_the_sources_own_is_asked_for():
    async with gateway(numbered()) as served:
        await served.in_state("running")
        assert picture(await served.http.get(PATH, params={"rendition": "90p"})).shape == (90, 160)
        assert served.worker.watched == ("upscaled",)
        own = picture(await served.http.get(PATH, params={"rendition": "source"}))
        assert (own.shape, read(own) is not None) == ((90, 160), True)
        await until(lambda: served.worker.watched == ("upscaled",), "it is no longer made")


async def test_one_that_nobody_watches_wakes_for_a_picture_where_its_last_is_too_old():
    async with gateway(numbered(gated=True), **UNWATCHED) as served:
        await served.in_state("idle")
        assert read(picture(await served.http.get(PATH))) == 0, "one came before it fell asleep"
        await until(lambda: served.worker.frames > 2 * FPS, "some seconds have passed")
        assert served.worker.watched == ()
        old = await served.http.get(PATH, params={"max_age": 3600})
        assert (read(picture(old)), float(old.headers["Picture-Age"]) > 1) == (0, True)
        new = await served.http.get(PATH, params={"max_age": 1})
        number = read(picture(new))
        assert number is not None
        assert number % 256 > 2 * FPS
        assert float(new.headers["Picture-Age"]) < 1
        await until(lambda: served.worker.watched == (), "and sleeps again")


async def test_what_cannot_be_shown_says_why(monkeypatch):
    monkeypatch.setattr(snapshots, "_WAITS_S", 0.2)
    asked = tokens(viewer=["view:demo"], other=["view:other"])
    async with gateway(ScriptedPlacement(Script(live=False)), **asked) as served:

        async def get(path: str, token: str = "viewer", **params) -> tuple[int, str]:
            answer = await served.http.get(path, params=params, headers=bearer(token))
            assert answer.headers["Content-Type"] == "application/problem+json"
            return answer.status_code, answer.json()["detail"]

        assert await get(PATH) == (
            503,
            "stream 'demo' is starting: no picture of rendition 'upscaled' has come yet",
        )
        assert await get(PATH, rendition="7p") == (
            404,
            "no rendition '7p'; the stream has upscaled, source",
        )
        assert (await get("/api/streams/none/snapshot.jpg"))[0] == 403
        assert (await get(PATH, "other"))[0] == 403
        assert (await get(PATH, width=0))[0] == 422
        assert (await served.http.get(PATH)).status_code == 401


def test_a_picture_is_not_shown_in_the_shape_of_another_source():
    kept = pictures.LatestPictures()
    kept.opened(opened(320, 180))
    kept.video(video(90_000, b"key frame", True))
    kept.opened(opened(320, 180))
    assert kept.find("upscaled") is not None, "another worker's of the same shape"
    kept.opened(opened(320, 240))
    assert kept.find("upscaled") is None


async def test_pixels_of_whatever_shape_make_no_picture_of_whatever_size():
    kept = pictures.LatestPictures()
    plain = opened(320, 180)
    kept.opened(replace(plain, source=replace(plain.source, sample_aspect_ratio=(1000, 1))))
    payload, _ = Encoder(320, 180, 1.0).encode(0, 0)
    kept.video(video(90_000, payload, True))
    taken = await snapshots.Snapshots(kept, glance=lambda rendition: nullcontext()).take(
        "upscaled", width=None, max_age_s=math.inf, awaited=lambda: False
    )
    assert Image.open(BytesIO(taken.jpeg)).size == (8192, 5)


def test_what_is_no_picture_is_said_to_be_none():
    for data in (b"", b"\0\0\0\1\x65garbage", bytes(100)):
        with pytest.raises(ValueError, match="no picture can be decoded"):
            jpeg.to_jpeg(data, 16, 16)
