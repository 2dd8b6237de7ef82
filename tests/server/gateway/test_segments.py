"""How a stream is cut into segments and told in playlists; frames come as fast as they are made."""

import itertools
import re
import time
from datetime import UTC, datetime
from fractions import Fraction
from io import BytesIO

import av
import pytest
from msgspec.structs import replace

from server.gateway.hls import playlist
from server.gateway.hls.sink import HlsSink
from server.settings import Hls
from server.wire.messages import AudioPacket
from tests.server.gateway.hls_media import Source, decode_audio, video
from tests.server.gateway.scripted_media import FPS, FRAME_TICKS, Encoder, opened


def test_segments_go_from_keyframe_to_keyframe_and_decode_whole():
    source = Source()
    source.run(6.5)
    assert source.segments.first.is_set()
    media = source.media()
    assert [entry.duration_s for entry in media.entries] == [0.4, 2.0, 2.0, 2.0], "the first comes soon"
    assert media.target_s == 2
    frames = source.play()
    assert len(frames) == 160
    assert [round(frame.time * FPS) for frame in frames] == list(range(25_000, 25_160))


def test_the_window_slides_and_what_has_left_it_stays_for_a_while():
    source = Source(segments=3)
    start = source.media().sequence
    source.run(6.5)
    first = source.media()
    assert (first.sequence, len(first.entries)) == (start + 1, 3)
    gone = first.entries[0].name
    source.run(4.0)
    second = source.media()
    assert second.sequence == start + 3
    assert second.entries[0].name == first.entries[2].name
    assert source.segments.find(gone)
    source.run(10.0)
    assert source.segments.find(gone) is None


def test_keyframes_for_viewers_leave_the_segments_as_long_as_they_were():
    source = Source()
    source.run(30.0, extra_keyframe_every=17)
    assert {entry.duration_s for entry in source.media().entries} <= {2.0, 2.04}
    assert source.media().target_s == 2


def test_an_encoder_with_rare_keyframes_is_asked_for_them():
    source = Source(gop_s=60.0)
    source.run(20.0)
    assert all(2.0 <= entry.duration_s <= 2.1 for entry in source.media().entries)
    assert source.asked


def test_a_new_worker_is_a_discontinuity_with_the_same_init():
    source = Source()
    source.run(4.5)
    source.sink.interrupted()
    source.pause(1.2)
    source.encoder = Encoder(160, 120, 2.0)
    source.run(4.5)
    media = source.media()
    assert [entry.discontinuity for entry in media.entries] == [False, False, True, False]
    assert len({entry.init for entry in media.entries}) == 1
    source.run(8.0)
    assert source.media().discontinuity_sequence == media.discontinuity_sequence + 1
    assert not any(entry.discontinuity for entry in source.media().entries)


def test_numbers_go_on_over_a_restart_of_the_service(monkeypatch):
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s)
    before = Source(segments=3, segment_s=1.0, gop_s=1.0)
    for _ in range(20):  # a bad day: a discontinuity in each second
        before.run(1.0)
        before.sink.interrupted()
        before.pause(0.1)
    now_s += 21.0
    last, after = before.media(), Source(segments=3, segment_s=1.0, gop_s=1.0).media()
    assert after.sequence > max(last.numbered())
    now_s += 20 * 600.0  # an ordinary one
    after = Source(segments=3, segment_s=1.0, gop_s=1.0).media()
    assert after.discontinuity_sequence >= last.discontinuity_sequence
    # Until when they do: players count in 31 bits, and hls.js has an array as long as the other.
    now_s = datetime(2042, 1, 1, tzinfo=UTC).timestamp()
    then = Source().media()
    assert then.sequence < 1 << 31
    assert then.discontinuity_sequence < 1 << 20


def test_a_clock_that_is_yet_to_be_set_makes_no_negative_numbers(monkeypatch):
    """And it goes on when that happens."""
    now_s = 0.0
    monkeypatch.setattr(time, "time", lambda: now_s)
    source = Source(segments=3, segment_s=1.0, gop_s=1.0)
    source.run(2.5)
    first = source.media()
    assert (first.sequence, first.discontinuity_sequence) == (0, 0)
    now_s = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    source.run(1.0)
    assert max(source.media().numbered()) == max(first.numbered()) + 1
    assert Source().media().sequence > max(source.media().numbered())


def test_a_worker_that_dies_before_its_first_picture_leaves_no_trace():
    source = Source()
    source.sink.interrupted()
    source.run(4.5)
    assert [entry.discontinuity for entry in source.media().entries] == [False, False, False]


def test_pictures_that_nothing_can_be_made_of_are_answered_with_the_wish_for_a_keyframe():
    sink = HlsSink(Hls(), on_need_keyframe=lambda: asked.append(True))
    sink.watch(("upscaled",))
    asked: list[bool] = []
    payload, _ = Encoder(160, 120, 2.0).encode(0, 0)
    sink.video(video(0, payload, keyframe=True))  # nobody has said yet what it is
    sink.opened(opened())
    idr_alone = b"\0\0\0\1\x65\x88\x84"
    sink.video(video(FRAME_TICKS, idr_alone, keyframe=True))
    sink.interrupted()
    assert len(asked) == 2
    assert not sink.segments.listed


def test_no_name_comes_again_in_another_run_of_the_service():
    names = []
    for _ in range(2):
        source = Source()
        source.run(4.1)
        names += [name for run in source.media().runs() for name in run]
    assert len(set(names)) == len(names) == 6


def test_a_hole_in_the_timeline_is_a_discontinuity_and_no_long_segment():
    source = Source()
    source.run(3.0)
    source.pause(7.0)
    source.run(5.0)
    media = source.media()
    assert media.target_s == 2
    assert sum(entry.discontinuity for entry in media.entries) == 1
    hole = next(e for e in media.entries if e.discontinuity)
    before = media.entries[media.entries.index(hole) - 1]
    assert (hole.starts - before.starts).total_seconds() == pytest.approx(7 + before.duration_s, abs=0.1)


def test_a_new_size_is_a_discontinuity_with_an_init_of_its_own():
    source = Source()
    source.run(4.2)
    source.resize(96, 64)
    source.run(4.2)
    media = source.media()
    assert [entry.duration_s for entry in media.entries] == [2.0, 1.8, 2.0, 2.0], "the old size ends at once"
    (changed,) = [entry for entry in media.entries if entry.discontinuity]
    assert changed.init != media.entries[0].init
    assert {(frame.width, frame.height) for frame in source.play()} == {(160, 120), (96, 64)}
    assert "RESOLUTION=96x64" in playlist.multivariant(source.sink)


@pytest.mark.parametrize("step_s", [0.3, 0.7, 0.9])
def test_a_slow_source_makes_segments_no_longer_than_was_promised(step_s):
    source = Source()
    source.encoder = Encoder(160, 120, 1000.0)
    for number in range(40):
        payload, keyframe = source.encoder.encode(number, source.pts)
        source.sink.video(video(source.pts, payload, keyframe))
        source.pts += round(step_s * 90_000)
    media = source.media()
    assert media.target_s == 2
    assert len(media.entries) == 4
    assert not any(entry.discontinuity for entry in media.entries)


def test_a_keyframe_that_comes_too_late_costs_pictures_and_no_promise():
    source = Source(gop_s=1000.0)
    source.sink._on_need_keyframe = lambda: None  # the worker is too slow to answer
    source.run(4.0)
    source.encoder.force = True
    source.run(1.0)
    source.sink.ended()
    media = source.media()
    assert media.target_s == 2
    assert [entry.discontinuity for entry in media.entries] == [False, True]
    assert media.entries[0].duration_s == pytest.approx(2.5, abs=0.05)
    assert media.entries[1].duration_s == pytest.approx(1.0)


def test_sound_lies_beside_the_picture():
    source = Source(sound=True)
    source.run(8.5)
    data = b"".join(source.segments.find(name) or b"" for name in source.media().runs()[0])
    with av.open(BytesIO(data)) as container:
        assert (container.streams.audio[0].sample_rate, container.streams.audio[0].channels) == (48_000, 2)
        packets = [p for p in container.demux(audio=0) if p.pts is not None]
        assert {b.pts - a.pts for a, b in itertools.pairwise(packets)} == {1024}
        start = float(packets[0].pts * packets[0].time_base)
    assert start == pytest.approx(1000.4, abs=0.03)
    assert sum(len(f.layout.channels) == 2 for f in decode_audio(data)) > 300
    assert re.search(r'CODECS="avc1\.42c0[0-9a-f]{2},mp4a\.40\.2"', playlist.multivariant(source.sink))


def test_sound_that_comes_before_the_first_picture_is_kept():
    source = Source(sound=True)
    assert source.sound
    source.sound_pts -= 24_000
    while source.sound_pts < 48_000 * 1000.5:  # the picture takes its time through the upscaler
        for payload in source.sound.packets("aac", source.sound_pts):
            source.sink.audio(AudioPacket(codec="aac", pts=source.sound_pts, duration=1024, payload=payload))
        source.sound_pts += 1024
    source.run(2.1)
    init, first = source.media().runs()[0]
    with av.open(
        BytesIO((source.segments.find(init) or b"") + (source.segments.find(first) or b""))
    ) as container:
        start = next(float(p.pts * p.time_base) for p in container.demux(audio=0))
    assert start == pytest.approx(1000.0, abs=0.03)


def test_sound_that_ends_leaves_the_picture_alone():
    source = Source(sound=True)
    source.run(2.5)
    source.sound = None
    source.run(4.0)
    assert [entry.duration_s for entry in source.media().entries] == [0.4, 2.0, 2.0, 2.0]
    assert len(source.play()) == 160


def test_sound_that_no_track_was_announced_for_is_left_out():
    source = Source()
    source.sink.audio(AudioPacket(codec="aac", pts=48_000 * 1000, duration=1024, payload=b"?"))
    source.run(2.1)
    (run,) = source.media().runs()
    with av.open(BytesIO(b"".join(source.segments.find(name) or b"" for name in run))) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_a_player_is_told_what_it_will_get():
    source = Source()
    source.run(6.1)
    text = playlist.multivariant(source.sink)
    assert "RESOLUTION=160x120" in text
    assert "FRAME-RATE=25.000" in text
    sizes = [len(source.segments.find(entry.name) or b"") * 8 / 2 for entry in source.media().entries[1:]]
    assert int(re.search(r"[:,]BANDWIDTH=(\d+)", text)[1]) >= max(sizes)


def test_recordings_from_before_frames_were_counted_slow_no_rate_down():
    (old, new) = playlist.Took(9000, 2.0, 0), playlist.Took(9000, 2.0, 50)
    mixed, unknown = (playlist.Measured.of(some, 2) for some in ([old, new], [old]))
    assert mixed.fps == 25
    assert "FRAME-RATE" not in playlist.stream_inf(unknown, ["avc1.42c00a"], 160, 120)


def test_non_square_pixels_are_told():
    source = Source()
    source.opened = replace(source.opened, source=replace(source.opened.source, sample_aspect_ratio=(4, 3)))
    source.sink.opened(source.opened)
    source.run(2.1)
    (run,) = source.media().runs()
    with av.open(BytesIO(b"".join(source.segments.find(name) or b"" for name in run))) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_each_frame_is_told_once_its_part_can_be_had():
    source, listed = Source(), []

    def on_listed(frames):
        part = (source.segments.growing or source.segments.listed[-1]).parts[-1]
        assert part.duration_s == pytest.approx(len(frames) / FPS)
        listed.extend(frames)

    source.sink = HlsSink(Hls(segment_s=2.0), on_need_keyframe=source._ask, on_listed=on_listed)
    source.sink.watch(("upscaled",))
    source.sink.opened(source.opened)
    start = source.pts
    source.run(6.5)
    assert [frame.pts for frame in listed] == [start + i * FRAME_TICKS for i in range(len(listed))]
    assert len(listed) >= 6 * FPS
