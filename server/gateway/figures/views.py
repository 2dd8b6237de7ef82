"""What the API tells of a stream: the JSON objects of `/api/streams`."""

from datetime import datetime
from typing import Literal, Self

from msgspec.structs import asdict
from pydantic import BaseModel, ConfigDict, Field, field_validator

from server.wire.messages import LoadState, Opened, Stage

StreamState = Literal["starting", "running", "idle", "reconnecting", "quarantined", "failed", "stopped"]


class Quantiles(BaseModel):
    """Quantiles over the last 512 frames, in seconds."""

    p50: float
    p95: float
    p99: float


class _Told(BaseModel):
    """Made of what a worker told, field by field."""

    model_config = ConfigDict(from_attributes=True)


class SourceView(BaseModel):
    codec: str
    width: int
    height: int
    pixel_format: str
    decoder: str = Field(examples=["h264", "nvdec"])
    fps: float = Field(description="Nominal; 0 where the source does not say")
    sample_aspect_ratio: str = Field(examples=["1:1"])
    audio: bool

    @field_validator("sample_aspect_ratio", mode="before")
    @classmethod
    def _as_text(cls, ratio: tuple[int, int]) -> str:
        return f"{ratio[0]}:{ratio[1]}"

    @classmethod
    def of(cls, opened: Opened) -> Self:
        return cls(**asdict(opened.source), audio=opened.audio is not None)


class OutputView(_Told):
    width: int
    height: int
    encoder: str
    bitrate_bps: int
    on_gpu: bool = Field(description="Pictures go from decoder to encoder within the GPU's memory")


class RenditionView(_Told):
    """What `/whep/ID?rendition=NAME` and an HLS variant show."""

    name: str = Field(examples=["upscaled", "540p", "source"])
    width: int
    height: int
    bitrate_bps: int = Field(description="Of its encoder, at most")
    watched: bool = Field(default=False, description="Somebody watches, so that it is encoded")


class EngineView(_Told):
    """What upscales now."""

    super_resolution: bool = Field(description="False while bicubic stands in for the network")
    model: str
    backend: str
    precision: str
    parity_db: float | None = Field(description="PSNR against the float32 reference; null for itself")
    scale: int


class EngineLoadView(_Told):
    """How far the engine for the source's pictures is; while it isn't ready, bicubic stands in for it."""

    state: LoadState
    model: str
    width: int = Field(description="Of the pictures that it is for, padded to even")
    height: int
    elapsed_s: float = Field(description="Of loading, until now or until it was ready or failed")
    detail: str = Field(description="What is being done now, or why it failed")


class SteppedView(BaseModel):
    """The last step from one level of the ladder to another."""

    reason: str
    at: datetime


class FramesView(BaseModel):
    total: int = Field(description="Frames published since the stream was created")
    dropped: dict[str, int] = Field(description="By 'stage/reason'", examples=[{"queue/overload": 3}])


class ViewersView(BaseModel):
    whep: int
    hls: int = Field(description="Players that fetched the playlist lately")


class WorkerView(BaseModel):
    restarts: int
    node: str | None = Field(default=None, description="The machine that it is on; null: the gateway's own")
    isolated: bool = Field(description="Kept from other streams, as two workers that it was in have died")
    pid: int | None = Field(
        description="Process id of the running worker, on its machine; streams that share one say the same"
    )
    rss_bytes: int = Field(description="The stream's part, where several share a process")
    cpu_s: float = Field(description="User and system time of the running worker, likewise")
    queues: dict[Stage, int] = Field(description="Frames waiting, by stage")


class PushView(BaseModel):
    target: str = Field(
        description="The path, a key, left out; (2) follows where another push goes to that server, too"
    )
    connected: bool
    reason: str = Field(description="Why it isn't")
    restarts: int


class UploadState(BaseModel):
    """Of the recordings of all streams to `recording.remote`."""

    waiting: int = Field(description="Finished files that are still here")
    waiting_bytes: int
    reason: str = Field(description="Why none can be sent now")


class RecordingState(BaseModel):
    on: bool
    since: datetime = Field(description="It has been so")
    reason: str = Field(description="Why nothing is recorded now")


class StreamView(BaseModel):
    """One stream, as it is now; what is known only once there is a picture is null before."""

    id: str
    source: str = Field(description="Credentials are masked")
    model: str
    state: StreamState
    reason: str = Field(description="Why, where the state is not 'running'")
    created: datetime
    started: datetime = Field(description="When this run of the service took it up")
    input: SourceView | None
    output: OutputView | None
    renditions: list[RenditionView] = Field(description="To choose from, the largest first")
    engine: EngineView | None
    engine_load: EngineLoadView | None
    level: int = Field(description="Of the ladder that upscales now; 0 is the model named, the last bicubic")
    stepped: SteppedView | None
    fps: float = Field(description="Frames published in each of the last seconds")
    latency_s: Quantiles | None = Field(description="A frame's last byte → its first bytes to every viewer")
    hls_latency_s: Quantiles | None = Field(
        description="A frame's last byte → the listing of its HLS segment, while somebody plays HLS"
    )
    stages_s: dict[Stage, Quantiles]
    frames: FramesView
    viewers: ViewersView
    source_reconnects: int
    recording: RecordingState | None = Field(description="Null where it isn't to be recorded")
    push: list[PushView]
    worker: WorkerView
    whep_url: str = Field(examples=["/whep/demo"])
    hls_url: str = Field(examples=["/hls/demo/index.m3u8"])


class ViewerView(BaseModel):
    """One WebRTC viewer: which picture it is sent, and what is known of its network. Null is what its
    feedback doesn't say, or hasn't yet."""

    rendition: str = Field(description="The first one's, where it compares two", examples=["upscaled"])
    reason: str = Field(
        description="Why the rendition was last changed; empty where it never was",
        examples=["1.5 Mbit/s arrive"],
    )
    rtt_s: float | None = Field(description="To the viewer and back, smoothed")
    loss: float = Field(description="Share of the packets of the last second")
    queue_s: float | None = Field(description="What packets wait on the way")
    sent_bps: float
    delivered_bps: float | None = Field(description="What has arrived of that in the last second")
    estimate_bps: float | None = Field(description="The viewer's own estimate (REMB)")
