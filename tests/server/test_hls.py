"""HLS of a real gateway, read by FFmpeg and checked line by line."""

import asyncio
import re
from io import BytesIO

import av
import pytest

from tests.server.gateway import Gateway, Script, ScriptedPlacement, gateway, until


async def playlist(served: Gateway, name: str = "media.m3u8") -> str:
    response = await served.http.get(f"/hls/demo/{name}", timeout=20)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/vnd.apple.mpegurl"
    return response.text


def durations(text: str) -> list[float]:
    return [float(d) for d in re.findall(r"#EXTINF:([\d.]+),", text)]


async def segments(served: Gateway, count: int) -> str:
    async def enough() -> str | None:
        text = await playlist(served)
        return text if len(durations(text)) >= count else None

    return await until(enough, f"{count} segments")


def placement(**script) -> ScriptedPlacement:
    return ScriptedPlacement(Script(gop_s=1.0, **script))


async def test_ffmpeg_plays_it_with_sound_and_in_real_time():
    async with gateway(placement(), hls={"segment_s": 1.0}) as served:
        await segments(served, 3)

        def play() -> tuple[list[float], int, str]:
            with av.open(
                f"{served.base}/hls/demo/index.m3u8", options={"live_start_index": "0"}
            ) as container:
                video, audio = container.streams.video[0], container.streams.audio[0]
                times, sound = [], 0
                for packet in container.demux(video, audio):
                    for frame in packet.decode():
                        if isinstance(frame, av.VideoFrame):
                            times.append(frame.time)
                        else:
                            sound += frame.samples
                    if len(times) >= 60:
                        break
                return times, sound, f"{video.width}x{video.height}"

        times, sound, size = await asyncio.to_thread(play)
        assert size == "160x120"
        gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
        assert gaps == pytest.approx([0.04] * len(gaps), abs=0.001)
        assert sound / 48_000 == pytest.approx(times[-1] - times[0], abs=1.1)
