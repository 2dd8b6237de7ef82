"""Pictures that stay on the GPU: the same code over NV12 in the host's memory; a machine without NVDEC."""

from dataclasses import replace

import av
import numpy as np
import pytest

from engine.frame import DeviceFrame
from engine.machine import nvidia_gpus
from server.settings import DEFAULT_MODEL, Settings
from server.wire.logs import get_logger
from server.wire.messages import Opened, VideoPacket
from server.worker.encode.video import VideoPublisher
from server.worker.engines import stays_on_gpu
from server.worker.ingest.container import find_tracks, tracks_of
from server.worker.ingest.source import Times
from server.worker.ingest.synthetic import read_frame_number
from server.worker.process.bicubic import bicubic_engine
from server.worker.process.decode import PictureDecoder
from server.worker.process.lanes import picture_lane
from server.worker.process.nvdec import open_nvdec, surface_of
from server.worker.process.picture import Picture, host_frame, host_planes, plane_view
from server.worker.process.pipeline import Pipeline
from server.worker.process.supply import StandIn
from tests.logs import events
from tests.server.clips import write_clip
from tests.server.worker.small_engine import DoublingEngine
from tests.server.worker.test_pipeline import picture

LOG = get_logger("test")


class SurfaceEngine(DoublingEngine):
    """Doubles NV12 surfaces, which lie in numpy's memory."""

    def surface_lane(self) -> "DoublingSurfaceLane":
        return DoublingSurfaceLane()


class DoublingSurfaceLane:
    def submit(self, frame: DeviceFrame) -> None:
        y, uv = np.from_dlpack(frame.y), np.from_dlpack(frame.uv)
        assert (y.shape, uv.shape) == ((frame.height, frame.width), (frame.height // 2, frame.width // 2, 2))
        y, uv = (np.ascontiguousarray(plane.repeat(2, 0).repeat(2, 1)) for plane in (y, uv))
        self._output = DeviceFrame(y=y, uv=uv, width=2 * frame.width, height=2 * frame.height)

    def wait(self) -> DeviceFrame:
        return self._output


def surface_picture(number: int) -> Picture:
    """As from NVDEC, but in the host's memory."""
    on_host = picture(number)
    frame = on_host.frame.reformat(format="nv12")
    y, uv = frame.planes
    planes = DeviceFrame(y=y, uv=uv, width=frame.width, height=frame.height)
    return replace(on_host, frame=frame, planes=planes, format=replace(on_host.format, decoder="nvdec"))


def run(load, pictures: list[Picture], **options) -> list:
    sent: list = []
    publisher = VideoPublisher(
        encoder="libx264", preset="ultrafast", bitrate_bps=0, keyframe_interval_s=10.0,
        renditions=("upscaled", "96p", "source"), send=sent.append, audio_format=lambda: None, log=LOG,
    )  # fmt: skip
    publisher.watch(("upscaled", "96p", "source") if options.pop("all", False) else ("upscaled",))

    def produce(put) -> None:
        for one in pictures:
            put(one)

    pipeline = Pipeline(
        produce=produce, load=load, lanes=2, consume=publisher.publish, on_drop=None, log=LOG, **options
    )
    pipeline.start()
    pipeline.join(60)
    publisher.close()
    return sent


def numbers(sent: list, scale: int, rendition: str = "upscaled") -> list[int | None]:
    decoder = av.CodecContext.create("h264", "r")
    packets = [m.payload for m in sent if isinstance(m, VideoPacket) and m.rendition == rendition]
    frames = [frame for payload in packets for frame in decoder.decode(av.Packet(payload))]
    return [read_frame_number(plane_view(f, 0), scale) for f in [*frames, *decoder.decode(None)]]


def test_surfaces_go_from_decoder_to_encoder_as_they_are():
    sent = run(lambda w, h, _: SurfaceEngine(w, h), [surface_picture(n) for n in range(12)], all=True)
    assert numbers(sent, 2) == list(range(12))
    assert numbers(sent, 1, "source") == list(range(12)), "the source's picture is brought to the host"
    assert numbers(sent, 1, "96p") == list(range(12)), "and so is the upscaled one for the smaller"
    [opened] = [m for m in sent if isinstance(m, Opened)]
    assert (opened.source.decoder, opened.engine.backend, opened.output.width) == ("nvdec", "test", 320)


def test_chroma_survives_the_way_there_and_back():
    one = surface_picture(3)
    lane = picture_lane(SurfaceEngine(160, 96), on_gpu=True)
    lane.submit(one)
    out = lane.wait()
    assert out.format.name == "nv12"
    expected, got = host_planes(picture(3)), out.reformat(format="yuv420p")
    for index, plane in enumerate((expected.y, expected.u, expected.v)):
        assert np.array_equal(plane_view(got, index), plane.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(
    ("engine", "pictures"),
    [
        (DoublingEngine, [surface_picture(n) for n in range(6)]),  # a CPU engine
        (SurfaceEngine, [picture(n) for n in range(6)]),  # a CPU decoder
    ],
    ids=["engine", "decoder"],
)
def test_where_one_side_is_on_the_host_pictures_go_through_it(engine, pictures):
    sent = run(lambda w, h, _: engine(w, h), pictures)
    assert numbers(sent, 2) == list(range(6))


def test_bicubic_stands_in_for_an_engine_that_takes_surfaces():
    stand_in = StandIn(load=lambda width, height, _: bicubic_engine(width, height, 2), patience_s=0.0)
    one = surface_picture(0)
    assert np.array_equal(host_planes(one).u, picture(0).planes.u)
    assert host_frame(one).format.name == "yuv420p"
    sent = run(lambda w, h, _: SurfaceEngine(w, h), [surface_picture(n) for n in range(6)], stand_in=stand_in)
    assert numbers(sent, 2) == list(range(6))


def needs_no_gpu() -> None:
    if nvidia_gpus():
        pytest.skip("this machine has an NVIDIA GPU")


def test_without_nvdec_the_host_decodes_and_the_log_says_why(tmp_path, caplog):
    needs_no_gpu()
    path = write_clip(tmp_path / "clip.mp4", frames=5)
    pictures = []
    with av.open(str(path)) as container:
        video, _ = find_tracks(container)
        decoder = PictureDecoder(
            tracks_of(video, None),
            max_size=(640, 360),
            stamp=lambda pts, duration, time_base, _: (pts, duration),
            on_drop=lambda reason: None,
            log=LOG,
            on_gpu=True,
        )
        for packet in container.demux(video):
            pictures += decoder.decode(packet, Times.at(1))
    assert [read_frame_number(host_planes(p).y) for p in pictures] == list(range(5))
    assert {p.format.decoder for p in pictures} == {"h264"}
    [said] = events(caplog, "decoding on the CPU")
    assert (said["level"], said["codec"]) == ("warning", "h264")
    assert said["reason"].startswith("no NVIDIA driver here: libcuda.so.1")


def test_a_codec_that_nvdec_has_not_is_named():
    with pytest.raises(LookupError, match="NVDEC has no rawvideo"):
        open_nvdec(av.CodecContext.create("rawvideo", "r"))


def test_frames_on_the_host_are_no_surfaces():
    assert surface_of(av.VideoFrame(64, 64, "nv12")) is None
    assert surface_of(av.VideoFrame(64, 64, "yuv420p")) is None


def test_nothing_is_kept_on_a_gpu_that_is_not_there():
    needs_no_gpu()
    settings = Settings()
    job = settings.stream(id="a", source="demo:", model=DEFAULT_MODEL).job(settings.limits)
    assert not stays_on_gpu(job, "h264_nvenc", LOG)
