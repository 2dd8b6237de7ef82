"""Recorded files, as a recorder writes them."""

import os
from datetime import datetime
from pathlib import Path

from server.gateway.mp4.fragments import Fragments
from server.gateway.record.archive import Archive
from server.wire.messages import AudioPacket
from tests.server.gateway.hls_media import video
from tests.server.gateway.scripted_media import FPS, FRAME_TICKS, Encoder, Sound, opened

WIDTH, HEIGHT = 320, 180


def write(
    archive: Archive,
    starts: datetime,
    *,
    seconds: float,
    number: int = 0,
    pts: int | None = None,
    width: int = WIDTH,
    gop_s: float = 2.0,
) -> Path:
    """One with sound and pictures that are numbered from `number` on; `pts`: of the first, else as many ticks
    as there are since 1970, so that files fit on each other only where that is said."""
    sound = Sound()
    fragments = Fragments(lasts_s=1.0)
    fragments.opened(opened(width, HEIGHT, sound.format))
    encoder = Encoder(width, HEIGHT, gop_s, numbered=True)
    first = pts if pts is not None else round(starts.timestamp() * 90_000)
    heard = first * 48_000 // 90_000
    made = []
    for index in range(round(seconds * FPS)):
        at = first + index * FRAME_TICKS
        while heard * 90_000 < (at + FRAME_TICKS) * 48_000:
            for payload in sound.packets("aac", heard):
                fragments.audio(AudioPacket(codec="aac", pts=heard, duration=1024, payload=payload))
            heard += 1024
        payload, keyframe = encoder.encode(number + index, at)
        made += fragments.video(video(at, payload, keyframe))
    made += fragments.interrupted()
    path = archive.begin("demo", starts)
    path.write_bytes(made[0].init + b"".join(fragment.data for fragment in made))
    ends_s = starts.timestamp() + seconds
    os.utime(path, (ends_s, ends_s))
    archive.finish(path)
    return path
