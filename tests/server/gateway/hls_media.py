"""Packets for segments, and segments as a player reads them."""

import math
import re
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

import av
import pytest
from msgspec.structs import replace

from server.gateway.hls import playlist
from server.gateway.hls.segments import Segments
from server.gateway.hls.sink import HlsSink
from server.settings import Hls
from server.wire.messages import AudioPacket, Trace, VideoPacket
from tests.server.gateway.scripted_media import FPS, FRAME_TICKS, Encoder, Sound, opened


class Source:
    """Video (and sound) with an IDR every two seconds, or where `HlsSink` asks for one."""

    def __init__(
        self,
        *,
        gop_s: float = 2.0,
        segment_s: float = 2.0,
        segments: int = 4,
        sound: bool = False,
        fps: float = FPS,
    ) -> None:
        hls = Hls(segment_s=segment_s, segments=segments)
        self.sink = HlsSink(hls, on_need_keyframe=self._ask)
        self.sound = Sound() if sound else None
        self.opened = opened(audio=self.sound.format if self.sound else None)
        self.encoder = Encoder(self.opened.output.width, self.opened.output.height, gop_s)
        self.pts = 90_000 * 1000
        self._ticks = round(90_000 / fps)
        self.sound_pts = 48_000 * 1000
        self.frames = 0
        self.asked = 0
        self.renditions = ("upscaled",)
        self.smaller = {
            form.name: Encoder(form.width, form.height, 1e4) for form in self.opened.renditions[1:]
        }
        self.sink.opened(self.opened)
        self.sink.watch(self.renditions)

    @property
    def segments(self) -> Segments:
        return self.sink.segments

    def _ask(self) -> None:
        self.asked += 1
        self.encoder.force = True

    def resize(self, width: int, height: int) -> None:
        self.opened = opened(width, height, self.opened.audio)
        self.encoder = Encoder(width, height, 2.0)
        self.sink.opened(self.opened)

    def run(self, seconds: float, *, extra_keyframe_every: int = 0) -> None:
        for index in range(round(seconds * 90_000 / self._ticks)):
            if extra_keyframe_every and index % extra_keyframe_every == 0:
                self.encoder.force = True
            payload, keyframe = self.encoder.encode(self.frames, self.pts)
            packet = replace(video(self.pts, payload, keyframe), duration=self._ticks)
            self.sink.video(packet)
            for name in self.renditions[1:]:
                self.smaller[name].force = keyframe
                payload, _ = self.smaller[name].encode(self.frames, self.pts)
                self.sink.video(replace(packet, rendition=name, payload=payload))
            self.pts += self._ticks
            self.frames += 1
            while self.sound and self.sound_pts * 90_000 < self.pts * 48_000:
                for payload in self.sound.packets("aac", self.sound_pts):
                    self.sink.audio(
                        AudioPacket(codec="aac", pts=self.sound_pts, duration=1024, payload=payload)
                    )
                self.sound_pts += 1024

    def watch(self, *renditions: str) -> None:
        """Begins with a key frame in all where one begins, as a worker does."""
        self.encoder.force |= bool(set(renditions) - set(self.renditions))
        self.renditions = renditions
        self.sink.watch(renditions)

    def pause(self, seconds: float) -> None:
        self.pts += round(seconds * 90_000)
        self.sound_pts += round(seconds * 48_000)

    def media(self, rendition: str = "upscaled") -> "Media":
        return Media.parse(playlist.media(self.sink, rendition))

    def play(self, rendition: str = "upscaled") -> list[av.VideoFrame]:
        """What a decoder makes of all that is listed, each run of one init segment by itself."""
        frames: list[av.VideoFrame] = []
        for run in self.media(rendition).runs():
            data = b"".join(self.sink.of(name).find(name) or b"" for name in run)
            with av.open(BytesIO(data)) as container:
                frames += list(container.decode(video=0))
        return frames


def video(pts: int, payload: bytes, keyframe: bool) -> VideoPacket:
    return VideoPacket(
        rendition="upscaled",
        pts=pts,
        duration=FRAME_TICKS,
        keyframe=keyframe,
        arrival_ns=0,
        sent_ns=0,
        trace=Trace(demux=0, decode=0, queue=0, upscale=0, encode=0),
        payload=payload,
    )


@dataclass
class Entry:
    name: str
    init: str
    duration_s: float
    starts: datetime
    discontinuity: bool


@dataclass
class Media:
    """A media playlist, held to RFC 8216 while it is read."""

    target_s: int
    sequence: int
    discontinuity_sequence: int
    entries: list[Entry]

    @classmethod
    def parse(cls, text: str) -> "Media":
        lines = text.splitlines()
        assert lines[0] == "#EXTM3U"
        assert text.endswith("\n")
        heads = {name: int(value) for name, value in re.findall(r"#EXT-X-([A-Z-]+):(\d+)\n", text)}
        media = cls(heads["TARGETDURATION"], heads["MEDIA-SEQUENCE"], heads["DISCONTINUITY-SEQUENCE"], [])
        init, duration_s, starts, discontinuity = "", 0.0, None, False
        for line in lines:
            if line.startswith("#EXT-X-MAP:URI="):
                init = line.split('"')[1]
            elif line.startswith("#EXTINF:"):
                duration_s = float(line[8:].rstrip(","))
            elif line.startswith("#EXT-X-PROGRAM-DATE-TIME:"):
                starts = datetime.fromisoformat(line.partition(":")[2])
            elif line == "#EXT-X-DISCONTINUITY":
                discontinuity = True
            elif not line.startswith("#"):
                assert init
                assert starts
                assert math.floor(duration_s + 0.5) <= media.target_s
                media.entries.append(Entry(line, init, duration_s, starts, discontinuity))
                starts, discontinuity = None, False
        for one, other in zip(media.entries, media.entries[1:], strict=False):
            step_s = (other.starts - one.starts).total_seconds()
            assert other.discontinuity or step_s == pytest.approx(one.duration_s, abs=0.002)
        return media

    def numbered(self) -> dict[int, str]:
        """Names by media sequence number."""
        return dict(enumerate((entry.name for entry in self.entries), self.sequence))

    def runs(self) -> list[list[str]]:
        """Names to be read one after the other: an init segment and what follows it."""
        runs: list[list[str]] = []
        for entry in self.entries:
            if not runs or runs[-1][0] != entry.init or entry.discontinuity:
                runs.append([entry.init])
            runs[-1].append(entry.name)
        return runs


def decode_audio(data: bytes) -> list[av.AudioFrame]:
    with av.open(BytesIO(data)) as container:
        return list(container.decode(audio=0))
