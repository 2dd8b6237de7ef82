"""The commands of docs/publishing.md, as somebody would copy them."""

import re
import shlex
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import ROOT
from tests.peers.service import Service, until
from tests.peers.test_publishers import Spawn
from tests.ports import free_port
from tests.server.clips import write_clip

LINE = re.compile(r"\| (ffmpeg|GStreamer)[^|]* \| (?:`([^`]+)`|the same) \| `([^`]+)`")
# GStreamer's WHIP is no package of Debian's; what is piped in has a test of its own.
ELSEWHERE = ("whipclientsink", "livesr serve -")


def lines() -> list[tuple[str, str]]:
    """Sources and the commands that publish to them."""
    found, source = [], ""
    for line in (ROOT / "docs" / "publishing.md").read_text().splitlines():
        source = named[1] if (named := re.match(r"\| [^|]+ \| `([^`]+)`", line)) else source
        row = LINE.match(line)
        if row is not None and not any(word in line for word in ELSEWHERE):
            found.append((source, row[3]))
    return found


def test_each_command_publishes(
    service: Service, ffmpeg: str, program: Callable[[str, str], str], spawn: Spawn, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", width=160, height=96, frames=500, audio="aac")
    programs = {"ffmpeg": ffmpeg, "gst-launch-1.0": program("gst-launch-1.0", "gstreamer1.0-tools")}
    commands = lines()
    assert len(commands) == 6, "RTMP, RTSP, WHIP, MPEG-TS over UDP, and SRT by both programs"
    started = list[list[str]]()
    with ExitStack() as streams:
        for number, (source, command) in enumerate(commands):
            port, name = free_port(), f"line-{number}"
            replaced = {
                "clip.mp4": str(clip),
                "v4l2src": "videotestsrc is-live=true ! video/x-raw,width=160,height=96",
                "our-host:8080": service.url.split("/")[2],
                "/whip/ID": f"/whip/{name}",
                "PASSPHRASE": "a-passphrase",
                "KEY": f"key-{number}",
            }
            for word, by in replaced.items():
                source, command = source.replace(word, by), command.replace(word, by)
            source = re.sub(r":\d+", f":{port}", source)
            streams.enter_context(service.stream(name, source, source_timeout_s=2))
            started.append(shlex.split(re.sub(r"our-host:\d+", f"127.0.0.1:{port}", command)))
        for number in range(len(commands)):
            service.wait_for(f"line-{number}", "reconnecting")
        for program_name, *words in started:
            spawn(programs[program_name], *words)
        heard = dict[int, str]()

        def all_heard() -> bool:
            for number in set(range(len(commands))) - set(heard):
                stream = service.show(f"line-{number}")
                if stream["state"] == "running":
                    heard[number] = stream["input"]["codec"]
            return len(heard) == len(commands)

        until(all_heard, "each is heard")
    assert set(heard.values()) == {"h264"}
