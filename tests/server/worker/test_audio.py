import itertools
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from server.wire.messages import AUDIO_CLOCK_HZ, AudioPacket
from server.worker.encode.adts import audio_specific_config, split_adts
from server.worker.encode.audio import AudioPublisher
from server.worker.ingest.container import find_tracks
from server.worker.ingest.timeline import Timeline
from tests.conftest import shared
from tests.server.clips import write_clip

ARRIVAL_S = 500.0


class Published:
    """The sound of a file as the gateway gets it."""

    def __init__(self, path: Path, *, skip: slice = slice(0, 0)) -> None:
        self.packets: list[AudioPacket] = []
        self.drops: list[str] = []
        with av.open(str(path)) as container:
            _, sound = find_tracks(container)
            assert sound is not None
            publisher = AudioPublisher(
                sound.codec_context,
                present=partial(Timeline().at, "sound"),
                send=self.packets.append,
                on_drop=self.drops.append,
            )
            self.source = []
            for index, packet in enumerate(list(container.demux(sound))[:-1]):
                if index in range(*skip.indices(10**6)):
                    continue
                self.source.append(bytes(packet))
                seconds = float((packet.pts or 0) * packet.time_base)
                publisher.push(packet, round((ARRIVAL_S + seconds) * 1e9))
            self.format = publisher.format

    def of(self, codec: str) -> list[AudioPacket]:
        return [packet for packet in self.packets if packet.codec == codec]

    def decoder(self, codec: str) -> av.CodecContext:
        context = av.CodecContext.create("libopus" if codec == "opus" else "aac", "r")
        if codec == "aac":
            context.extradata = self.format.config
        return context

    def decoded(self, codec: str) -> tuple[np.ndarray, int]:
        """All samples of the first channel, and their rate."""
        context = self.decoder(codec)
        blocks, rate = [], AUDIO_CLOCK_HZ
        for packet in self.of(codec):
            for frame in context.decode(av.Packet(packet.payload)):
                samples = frame.to_ndarray().astype(float)
                if frame.format.is_packed:
                    samples = samples.reshape(-1, frame.layout.nb_channels).T
                blocks.append(samples[0])
                rate = frame.sample_rate
        return np.concatenate(blocks), rate


def loudest_hz(samples: np.ndarray, rate: int) -> float:
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    return float(np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * rate / len(middle))


def assert_no_seam(packets: list[AudioPacket]) -> None:
    assert len(packets) > 10
    assert all(b.pts == a.pts + a.duration for a, b in itertools.pairwise(packets))


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".mp4", "aac"),
        (".ts", "aac"),
        (".mkv", "pcm_s16le"),
        (".ts", "mp2"),
        (".mkv", "libopus"),
        (".mkv", "flac"),
    ],
)
def test_whatever_comes_in_the_tone_goes_out_in_both_codecs(tmp_path, suffix, codec):
    published = Published(write_clip(tmp_path / f"clip{suffix}", frames=50, audio=codec))
    assert not published.drops
    for out in ("aac", "opus"):
        samples, rate = published.decoded(out)
        assert loudest_hz(samples, rate) == pytest.approx(440, abs=3)
        assert_no_seam(published.of(out))
        seconds = sum(packet.duration for packet in published.of(out)) / AUDIO_CLOCK_HZ
        assert seconds == pytest.approx(2.0, abs=0.1)


def test_opus_is_20_ms_at_48_khz(tmp_path):
    published = Published(write_clip(tmp_path / "clip.mp4", audio="aac"))
    decoder = published.decoder("opus")
    for packet in published.of("opus"):
        frames = decoder.decode(av.Packet(packet.payload))
        assert sum(frame.samples for frame in frames) == packet.duration == 960
        assert {frame.sample_rate for frame in frames} == {48_000}


def test_aac_of_a_file_is_copied_byte_for_byte(tmp_path):
    published = Published(write_clip(tmp_path / "clip.mp4", audio="aac"))
    assert [packet.payload for packet in published.of("aac")] == published.source
    assert published.format.config.startswith(b"\x11\x90")  # AAC LC, 48 kHz, stereo
    assert (published.format.rate_hz, published.format.channels) == (48_000, 2)


def test_aac_of_a_transport_stream_loses_its_adts_headers(tmp_path):
    published = Published(write_clip(tmp_path / "clip.ts", audio="aac"))
    assert published.format.config == b"\x11\x90"
    for packet, source in zip(published.of("aac"), published.source, strict=True):
        assert source.startswith(b"\xff\xf1")  # without CRC, so 7 bytes long
        assert packet.payload == source[7:]


def test_sound_and_its_picture_start_together(tmp_path):
    """The tone starts at 0 of the file, and so does the picture."""
    published = Published(write_clip(tmp_path / "clip.mkv", audio="pcm_s16le"))
    for codec in ("aac", "opus"):
        samples, rate = published.decoded(codec)
        onset_s = np.argmax(np.abs(samples) > 0.3 * np.abs(samples).max()) / rate
        start_s = published.of(codec)[0].pts / AUDIO_CLOCK_HZ - ARRIVAL_S
        assert start_s + onset_s == pytest.approx(0, abs=0.015)


def test_a_gap_stays_a_gap_and_what_follows_is_on_time(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=75, audio="aac")
    whole, gapped = Published(path), Published(path, skip=slice(40, 80))
    assert gapped.of("aac")[-1].pts == whole.of("aac")[-1].pts
    assert abs(gapped.of("opus")[-1].pts - whole.of("opus")[-1].pts) <= 2000
    for codec in ("aac", "opus"):
        pts = [packet.pts for packet in gapped.of(codec)]
        assert pts == sorted(set(pts))
        assert max(b - a for a, b in itertools.pairwise(pts)) > 0.7 * AUDIO_CLOCK_HZ


def test_a_step_back_in_time_is_counted_not_sent(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=50, audio="aac")
    with av.open(str(path)) as container:
        [sound] = container.streams.audio
        sent, drops = [], []
        timeline = Timeline()
        publisher = AudioPublisher(
            sound.codec_context, present=partial(timeline.at, "sound"), send=sent.append, on_drop=drops.append
        )
        packets = list(container.demux(sound))[:-1]
        for packet in packets[:40]:
            publisher.push(packet, round((ARRIVAL_S + float(packet.pts * packet.time_base)) * 1e9))
        timeline.reset()  # the source came back with the same half second
        for packet in packets[20:60]:
            publisher.push(
                packet, round((ARRIVAL_S + float((packet.pts - 20 * 1024) * packet.time_base)) * 1e9)
            )
    assert "overlap" in drops
    for codec in ("aac", "opus"):
        of = [packet for packet in sent if packet.codec == codec]
        assert all(b.pts >= a.pts + a.duration for a, b in itertools.pairwise(of))


def test_garbage_in_the_sound_is_counted_and_the_rest_goes_on(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=50, audio="aac")
    with av.open(str(path)) as container:
        [sound] = container.streams.audio
        sent, drops = [], []
        publisher = AudioPublisher(
            sound.codec_context,
            present=partial(Timeline().at, "sound"),
            send=sent.append,
            on_drop=drops.append,
        )
        for index, packet in enumerate(list(container.demux(sound))[:-1]):
            if 20 <= index < 30:
                broken = av.Packet(bytes([0xFF, 0x11] * 40))
                broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                packet = broken
            publisher.push(packet, round((ARRIVAL_S + float(packet.pts * packet.time_base)) * 1e9))
    assert drops.count("corrupt") >= 5
    assert len([p for p in sent if p.codec == "opus"]) > 70


def test_surround_sound_is_copied_and_mixed_down_for_webrtc():
    published = Published(shared("data/video/bbb_480p_30s.mp4"))
    assert published.format.channels == 6
    assert published.of("aac")[5].payload == published.source[5]
    assert published.of("opus")
    assert not published.drops


@pytest.mark.parametrize("codec", ["aac", "mp2", "ac3"])
@pytest.mark.parametrize("layouts", [("mono", "stereo"), ("stereo", "mono")])
def test_sound_that_changes_between_mono_and_stereo_goes_on(tmp_path, codec, layouts):
    sent, drops = [], []
    publisher = None
    for part, layout in enumerate([*layouts, layouts[0]]):
        path = write_clip(tmp_path / f"{part}.ts", frames=50, audio=codec, layout=layout)
        with av.open(str(path)) as container:
            [sound] = container.streams.audio
            start = sound.start_time
            publisher = publisher or AudioPublisher(
                sound.codec_context,
                present=partial(Timeline().at, "sound"),
                send=sent.append,
                on_drop=drops.append,
            )
            for packet in list(container.demux(sound))[:-1]:
                packet.pts += part * 189_000 - start  # AAC lasts longer than its picture
                publisher.push(packet, round((ARRIVAL_S + float(packet.pts * packet.time_base)) * 1e9))
            if codec == "aac":
                assert publisher.format.channels == {"mono": 1, "stereo": 2}[layout]
    assert not drops
    for out in ("aac", "opus"):
        packets = [packet for packet in sent if packet.codec == out]
        assert sum(packet.duration for packet in packets) / AUDIO_CLOCK_HZ == pytest.approx(6, abs=0.2)


def test_the_first_of_several_tracks_is_taken():
    with av.open(str(shared("data/video/nasa_13013.mp4"))) as container:
        video, sound = find_tracks(container)
        assert (video.index, sound.index) == (0, 1)
        assert sound.codec_context.sample_rate == 8000
    published = Published(shared("data/video/nasa_13013.mp4"))
    assert published.format.rate_hz == 8000
    assert {packet.duration for packet in published.of("aac")} == {1024 * 6}


def test_adts():
    config = audio_specific_config(object_type=2, rate_hz=44_100, channels=2)
    assert config.hex() == "1210"
    assert split_adts(b"") is None
    assert split_adts(b"\xff\xf1\x50\x80\x01\x1f\xfc") is None  # shorter than it says
    with pytest.raises(ValueError, match="rate_hz = 44000 must be one of"):
        audio_specific_config(object_type=2, rate_hz=44_000, channels=2)
    with pytest.raises(ValueError, match="channels = 9"):
        audio_specific_config(object_type=2, rate_hz=48_000, channels=9)
