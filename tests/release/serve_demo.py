"""Serves the demo with the installed package and reads one upscaled picture from it, as a player would.

Run by `make release-check` with the Python of a clean environment, outside of the checkout.
"""

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import av

import server

TIMEOUT_S = 120.0


def main() -> int:
    livesr = str(Path(sys.executable).with_name("livesr"))
    print(subprocess.run([livesr, "--version"], check=True, capture_output=True, text=True).stdout.strip())
    print(f"installed in {Path(server.__file__).parent.parent}")
    process = subprocess.Popen([livesr, "serve", "demo:", "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("livesr: open ").strip()
        size = _first_picture(url)
        stream = json.loads(urllib.request.urlopen(url + "api/streams/demo").read())
        source = stream["input"]["width"], stream["input"]["height"]
        page = urllib.request.urlopen(url).status
    finally:
        process.terminate()
        status = process.wait(TIMEOUT_S)
    print(f"{source[0]}x{source[1]} came out as {size[0]}x{size[1]}; page {page}; ended with {status}")
    return 0 if size == (2 * source[0], 2 * source[1]) and page == 200 and status == 0 else 1


def _first_picture(url: str) -> tuple[int, int]:
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            with av.open(url + "hls/demo/index.m3u8", timeout=TIMEOUT_S) as container:
                frame = next(container.decode(video=0))
                return frame.width, frame.height
        except (av.FFmpegError, StopIteration):  # nothing to play yet
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
