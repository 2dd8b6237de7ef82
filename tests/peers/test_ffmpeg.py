"""ffmpeg as publisher and as player: RTMP, RTSP and MPEG-TS in, HLS out."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median

import pytest

from tests.peers.service import Service, until
from tests.ports import free_port

PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=160x90:rate=15")
SOUND = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100")
CODECS = (
    *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-g", "15"),
    *("-c:a", "aac"),
)

PUBLISHERS = {
    "rtmp": (("-f", "flv"), "rtmp://127.0.0.1:{port}/live/key", "?listen=1"),
    "rtsp": (("-f", "rtsp", "-rtsp_transport", "tcp"), "rtsp://127.0.0.1:{port}/live", "?listen=1"),
    "mpegts": (("-f", "mpegts"), "udp://127.0.0.1:{port}", ""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """What ffmpeg decoded of one track: `times_s` are presentation times."""

    times_s: list[float]
    size: str


def play(ffmpeg: str, url: str, seconds: float) -> list[Track]:
    """Video and audio as ffmpeg plays them, every decoded frame listed."""
    command = [ffmpeg, "-v", "error", "-i", url, "-t", str(seconds), "-map", "0:v:0", "-map", "0:a:0"]
    command += ["-fps_mode", "passthrough", "-enc_time_base:v", "demux", "-f", "framecrc", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    bases: dict[str, Fraction] = {}
    sizes: dict[str, str] = {}
    times_s: dict[str, list[float]] = {"0": [], "1": []}
    for line in done.stdout.splitlines():
        match line.replace(",", " ").split():
            case ["#tb", track, base]:
                bases[track.rstrip(":")] = Fraction(base)
            case ["#dimensions", track, size]:
                sizes[track.rstrip(":")] = size
            case [("0" | "1") as track, _dts, pts, *_]:
                times_s[track].append(float(int(pts) * bases[track]))
    return [Track(times_s=times_s[track], size=sizes.get(track, "")) for track in ("0", "1")]


@pytest.mark.parametrize("how", PUBLISHERS)
def test_a_publisher_is_upscaled_and_played(
    service: Service, ffmpeg: str, spawn: Callable[..., "subprocess.Popen[bytes]"], how: str
) -> None:
    output, url, listen = PUBLISHERS[how]
    url = url.format(port=free_port())
    command = (ffmpeg, "-re", *PICTURE, *SOUND, *CODECS, *output, url)
    with service.stream(how, url + listen):
        publisher = spawn(*command)

        def runs() -> bool:
            # A publisher that was there before the listener gives up, as people's do; they start it again.
            nonlocal publisher
            if publisher.poll() is not None:
                publisher = spawn(*command)
                time.sleep(0.3)
            return service.show(how)["state"] == "running"

        until(runs, f"the published stream runs: {service.show(how)}")
        source = service.show(how)["input"]
        assert (source["codec"], source["width"], source["height"]) == ("h264", 160, 90)
        assert source["audio"]

        def plays_evenly() -> bool:
            video, audio = play(ffmpeg, f"{service.url}hls/{how}/index.m3u8", 4)
            assert video.size == "320x180"
            for track in (video, audio):
                assert track.times_s == sorted(set(track.times_s)), "timestamps rise"
            spans_s = [track.times_s[-1] - track.times_s[0] for track in (video, audio)]
            interval_s = median(b - a for a, b in pairwise(video.times_s))
            return (
                all(3.5 < span_s < 4.5 for span_s in spans_s)
                and abs(video.times_s[0] - audio.times_s[0]) < 0.15
                and interval_s == pytest.approx(1 / 15, rel=0.1)
            )

        # Not from the first second on: what a publisher sends at once when it connects is made up for.
        until(plays_evenly, "picture and sound are whole, side by side, and at the publisher's rate")


def test_every_variant_plays(service: Service, ffmpeg: str) -> None:
    """By itself, and as what a player makes of the multivariant playlist, which opens all of them."""
    renditions = ["upscaled", "120p", "source"]
    with service.stream("variants", "synthetic:?size=160x96&fps=15", renditions=renditions):
        service.wait_for("variants", "running")
        playlists = {"120p": "200x120", "source": "160x96", "index": "320x192"}
        for name, size in playlists.items():
            video, audio = play(ffmpeg, f"{service.url}hls/variants/{name}.m3u8", 3)
            assert video.size == size
            assert video.times_s == sorted(set(video.times_s))
            assert len(video.times_s) >= 40
            assert audio.times_s[-1] - audio.times_s[0] > 2.5
        watched = {one["name"]: one["watched"] for one in service.show("variants")["renditions"]}
        assert watched == dict.fromkeys(renditions, True)
