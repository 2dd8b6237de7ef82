"""The socket's framing: whole messages out of any pieces, and nothing else."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.wire.messages import (
    MAX_PAYLOAD_BYTES,
    AudioPacket,
    Broke,
    Codec,
    Dropped,
    EngineLoad,
    Failed,
    Heartbeat,
    ProtocolError,
    Reconnecting,
    RequestKeyframe,
    SetPlain,
    Stop,
    VideoPacket,
)
from tests.server.gateway.scripted_gateway import opened

MESSAGES = [
    RequestKeyframe(rendition="plain"),
    SetPlain(enabled=True),
    Stop(),
    opened(aac_config="1190"),
    VideoPacket(
        rendition="upscaled",
        pts=2**40,
        duration=3600,
        keyframe=True,
        arrival_ns=2**50,
        sent_ns=2**50 + 1,
        stages_s={"decode": 0.001},
        payload=bytes(range(256)) * 40,
    ),
    AudioPacket(codec="opus", pts=1, duration=960, payload=b"\0\1"),
    Dropped(stage="upscale", reason="overload", count=3),
    Reconnecting(reason="refused – später", retry_in_s=0.5),
    Failed(reason="no video"),
    Broke(reason="the GPU is lost"),
    EngineLoad(state="loading", model="m", width=640, height=360, elapsed_s=1.5, detail="tuning"),
    Heartbeat(queues={"upscale": 2}, rss_bytes=1, cpu_s=0.25),
]


@given(st.lists(st.sampled_from(MESSAGES), max_size=6), st.integers(1, 9000))
def test_messages_survive_any_fragmentation(messages, piece):
    wire = b"".join(Codec.encode(message) for message in messages)
    codec, received = Codec(), []
    for start in range(0, len(wire), piece):
        received += codec.feed(wire[start : start + piece])
    assert received == messages


def frame(head: bytes, payload_bytes: int = 0) -> bytes:
    return struct.pack("!II", len(head), payload_bytes) + head + bytes(min(payload_bytes, 16))


@pytest.mark.parametrize(
    "wire",
    [
        frame(b"not json"),
        frame(b'["NoSuchMessage", {}]'),
        frame(b'["Stop", {"more": 1}]'),
        frame(b'["SetPlain", {}]'),
        frame(b'["SetPlain", {"enabled": 1}]'),
        frame(b'["RequestKeyframe", {"rendition": "best"}]'),
        frame(b'["Failed", {"reason": ["x"]}]'),
        frame(b'["Dropped", {"stage": "lunch", "reason": "x", "count": 1}]'),
        frame(b'["Heartbeat", {"queues": {"upscale": "2"}, "rss_bytes": 1, "cpu_s": 0.1}]'),
        frame(b"[]"),
        frame(b"7"),
        frame(b'{"Stop": 1}'),
        frame(b'["Stop", {}]', payload_bytes=MAX_PAYLOAD_BYTES + 1),
        struct.pack("!II", 0xFFFFFFFF, 0),
    ],
)
def test_nonsense_is_refused(wire):
    with pytest.raises(ProtocolError):
        Codec().feed(wire)


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_being_refused(data):
    with contextlib.suppress(ProtocolError):
        Codec().feed(data)
