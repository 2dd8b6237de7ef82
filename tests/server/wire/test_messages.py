"""The socket's framing: whole messages out of any pieces, and nothing else."""

import contextlib
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.wire.codec import MAX_MESSAGE_BYTES, Decoder, ProtocolError, encode
from server.wire.messages import (
    AudioFormat,
    AudioPacket,
    AwaitPublisher,
    Dropped,
    EngineLoad,
    Heartbeat,
    JobImpossible,
    NeedKeyframe,
    PictureMissing,
    Published,
    PublishedData,
    PublisherGone,
    Reconnecting,
    RequestKeyframe,
    SetLogLevel,
    Stop,
    Trace,
    VideoPacket,
    Watch,
    WorkerBroken,
)
from tests.server.gateway.scripted_media import opened

MESSAGES = [
    RequestKeyframe(),
    Watch(renditions=("upscaled", "540p")),
    SetLogLevel(level="debug"),
    Stop(),
    AwaitPublisher(opening=1),
    NeedKeyframe(),
    Published(opening=1, format="rtsp", description=b"v=0"),
    PublishedData(opening=1, kind="start", data=b"$\0\0\1x", arrival_ns=2**50),
    PublisherGone(opening=2, reason="the publisher has gone"),
    opened(audio=AudioFormat(config=b"\x11\x90", rate_hz=48_000, channels=2)),
    VideoPacket(
        rendition="upscaled",
        pts=2**40,
        duration=3600,
        keyframe=True,
        arrival_ns=2**50,
        sent_ns=2**50 + 1,
        trace=Trace(demux=0, decode=0.001, queue=0, upscale=0.02, encode=0.003),
        payload=bytes(range(256)) * 40,
    ),
    AudioPacket(codec="opus", pts=1, duration=960, payload=b"\0\1"),
    Dropped(stage="upscale", reason="overload", count=3),
    Dropped(stage="decode", reason="overlap", count=36, sound=True),
    PictureMissing(reason="no picture for 10 s, while its sound goes on"),
    Reconnecting(reason="refused – später", retry_in_s=0.5),
    JobImpossible(reason="no video"),
    WorkerBroken(reason="the GPU is lost"),
    EngineLoad(state="loading", model="m", width=640, height=360, elapsed_s=1.5, detail="tuning"),
    Heartbeat(queues={"upscale": 2}, rss_bytes=1, cpu_s=0.25),
]


@given(st.lists(st.sampled_from(MESSAGES), max_size=6), st.integers(1, 9000))
def test_messages_survive_any_fragmentation(messages, piece):
    wire = b"".join(encode(message) for message in messages)
    decoder, received = Decoder(), []
    for start in range(0, len(wire), piece):
        received += decoder.feed(wire[start : start + piece])
    assert received == messages


def nonsense(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


def tagged(name: str, **fields: object) -> bytes:
    return nonsense(msgspec.msgpack.encode({"type": name, **fields}))


@pytest.mark.parametrize(
    "wire",
    [
        nonsense(b"no message"),
        nonsense(b""),
        nonsense(msgspec.msgpack.encode(["Stop", 5])),
        nonsense(msgspec.msgpack.encode([])),
        nonsense(msgspec.msgpack.encode(7)),
        nonsense(b"\x91" * 100_000),
        nonsense(b"\x82\xa4type\xa4Stop\xa1x" + b"\x91" * 100_000),
        nonsense(b"\x81\xa4type\xa4\xff\xff\xff\xff"),
        tagged("NoSuchMessage"),
        tagged("Stop", more=1),
        tagged("Watch"),
        tagged("Watch", renditions=["other"]),
        tagged("Watch", renditions=["best"]),
        tagged("JobImpossible", reason=["x"]),
        tagged("JobImpossible", reason="x" * (2 << 20)),
        tagged("Dropped", stage="lunch", reason="overload", count=1),
        tagged("Dropped", stage="upscale", reason="a typo", count=1),
        tagged("Dropped", stage="upscale", reason="overload", count=-1),
        tagged("Heartbeat", queues={"upscale": "2"}, rss_bytes=1, cpu_s=0.1),
        struct.pack("!I", MAX_MESSAGE_BYTES + 1),
    ],
)
def test_nonsense_is_refused(wire):
    with pytest.raises(ProtocolError):
        Decoder().feed(wire)


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_being_refused(data):
    with contextlib.suppress(ProtocolError):
        Decoder().feed(data)


@given(st.sampled_from(MESSAGES), st.data())
def test_a_damaged_message_does_no_worse_either(message, data):
    wire = encode(message)
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(4, len(wire) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        Decoder().feed(bytes(wire))
