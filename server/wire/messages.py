"""What crosses between a stream's worker and the gateway. `wire.codec` says how it lies on the socket.

A stream has a socket of its own, whichever process its worker shares with others."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from server.wire.logs import LogLevel
from server.wire.source_policy import SourcePolicy

VIDEO_CLOCK_HZ = 90_000
AUDIO_CLOCK_HZ = 48_000
DEFAULT_KEYFRAME_INTERVAL_S = 2.0

# What a worker upscales, the source's own picture, or the upscaled one in so many lines: "540p". In VP8
# instead of H.264 these are "540p-vp8".
UPSCALED, SOURCE = "upscaled", "source"
Rendition = Annotated[str, Meta(pattern=r"^(upscaled|source|[1-9][0-9]{1,3}p)(-vp8)?\Z")]
When = Literal["always", "watched"]
Deinterlace = Literal["frame", "field", "off"]
Stage = Literal["demux", "decode", "queue", "upscale", "encode", "publish"]
DropReason = Literal[
    "overload",
    "engine_loading",
    "corrupt",
    "before_keyframe",
    "overlap",
    "slow_viewer",
    "slow_gateway",
    "slow_worker",
]
LoadState = Literal["loading", "ready", "failed"]
BICUBIC = "bicubic"  # the backend that stands in for a network's
AudioCodec = Literal["aac", "opus"]
PublishedFormat = Literal["flv", "rtsp", "mpegts"]
# Where a decoder can begin; what it has to know before; what needs all that came before.
PieceKind = Literal["start", "header", "rest"]

# Of the picture's colours, as an engine is told them.
Matrix = Literal["bt601", "bt709"]

Level = Annotated[int, Meta(ge=0, le=64)]
Count = Annotated[int, Meta(ge=1)]
Size = Annotated[int, Meta(ge=1, le=1 << 16)]
Seconds = Annotated[float, Meta(ge=0)]
# A megabyte: no log line, no answer of the API grows beyond it.
Text = Annotated[str, Meta(max_length=1 << 20)]


class Message(Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """The tag is the class's name."""


class _Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Part of a message."""


class WorkerJob(Message, frozen=True):
    """Gateway → worker, first message: everything a worker needs to run one stream."""

    stream: Text
    source: Text  # URL or path, as it was written
    policy: SourcePolicy | None  # what the source may be; None: the operator's own, which may be anything
    loop: bool  # a file starts again at its end
    model: Text  # zoo name, artifact or checkpoint path
    backend: Text | None  # None: the best of this machine
    lanes: int  # 0: as many as suit the engine
    engine_threads: int  # 0: every core
    batch_wait_s: float  # on a GPU a frame waits so long for those of other streams
    encoder: Text  # "auto", "libx264" or "h264_nvenc"
    preset: Text
    bitrate_bps: int  # 0: chosen from the output's size and rate
    keyframe_interval_s: float
    max_width: int  # of the source picture; larger fails the stream
    max_height: int
    worker_memory_bytes: int  # private memory of the process; 0: as much as there is
    source_timeout_s: float
    engine_patience_s: float  # an engine that takes longer to load is stood in for by bicubic
    ladder: tuple[Text, ...] | None  # below the model, BICUBIC too; None: the usual one
    latency_budget_s: float  # of a frame; 0: three of its intervals, at most 150 ms
    source_when: When  # the source is open: always, or while somebody watches
    renditions: tuple[Rendition, ...]  # that may be watched; UPSCALED is one
    # Where the worker before got to, in ticks of each: viewers never see timestamps go back.
    video_after: int | None = None
    waited_for: bool = False  # that one was another gateway's, and players come here
    sound_after: int | None = None
    level: Level = 0  # of the ladder, where it stands
    deinterlace: Deinterlace = (
        "frame"  # interlaced frames: a picture of each, or of each field, or as they are
    )
    slate: Text | None = None  # path of the image that viewers see while the source is away
    opened: "Opened | None" = None  # what the worker before had opened: a slate may go on as that
    gpu: Text = ""  # the UUID of the one GPU that it may use; "": what its environment says
    engine_ahead: "Prepare | None" = None  # its own, if the source is as the worker before had it

    @property
    def takes_over(self) -> bool:
        """Viewers have seen what a worker before sent."""
        return self.video_after is not None or self.waited_for

    def engine(self, *, width: int, height: int, matrix: Matrix, full_range: bool) -> "Prepare":
        """The engine that upscales planes of this kind."""
        return Prepare(
            model=self.model,
            backend=self.backend,
            lanes=self.lanes,
            engine_threads=self.engine_threads,
            width=width,
            height=height,
            matrix=matrix,
            full_range=full_range,
        )

    def engine_of(self, load: "EngineLoad") -> "Prepare":
        """The engine for pictures as they were then."""
        return self.engine(
            width=load.width, height=load.height, matrix=load.matrix, full_range=load.full_range
        )


class Prepare(Message, frozen=True):
    """Gateway → worker, before its job: compile this engine ahead, as a job of these options would."""

    model: Text
    backend: Text | None
    lanes: int
    engine_threads: int
    width: Size  # of the planes that go into the engine
    height: Size
    matrix: Matrix
    full_range: bool


class RequestKeyframe(Message, frozen=True):
    """Gateway → worker: the next frame encoded shall be an IDR, in every rendition."""


class Watch(Message, frozen=True):
    """Gateway → worker: these renditions are watched; what nobody watches need not be made, but for the
    upscaled one while there is another. None is at the start."""

    renditions: tuple[Rendition, ...]


class StepUp(Message, frozen=True):
    """Gateway → worker: there is room for this level of the ladder."""

    level: Level


class Published(Message, frozen=True):
    """Gateway → worker: somebody publishes, and what follows is of that publication.

    FLV needs no description; that of RTSP is its SDP.
    """

    opening: Count
    format: PublishedFormat
    description: bytes = b""


class PublishedData(Message, frozen=True):
    """Gateway → worker: whole FLV tags, whole MPEG-TS packets, or whole RTP and RTCP packets as RTSP
    interleaves them, channel 2n being RTP of the description's track n. Empty: nothing yet that a decoder
    could begin with."""

    opening: Count
    kind: PieceKind
    data: bytes
    arrival_ns: int


class PublisherGone(Message, frozen=True):
    """Gateway → worker: nothing follows, for this opening; also where nobody can be waited for."""

    opening: Count
    reason: Text


class SetLogLevel(Message, frozen=True):
    """Gateway → worker: how much the process logs from now on."""

    level: LogLevel


class Stop(Message, frozen=True):
    """Gateway → worker: finish the stream. Once nothing is left of it the worker closes the socket."""


class Alive(Message, frozen=True):
    """Worker → gateway, ten times a second once its pipeline runs: the process isn't stopped or stuck."""


class AwaitPublisher(Message, frozen=True):
    """Worker → gateway: send what is published, from its start or the next place where a decoder can begin.

    What the gateway sends for it has the same `opening`; a later one takes its place.
    """

    opening: Count


class NeedKeyframe(Message, frozen=True):
    """Worker → gateway: what is published has to begin again with a key frame, as some of it was dropped."""


class AudioFormat(_Part, frozen=True):
    """The AAC of HLS; WebRTC's Opus is always stereo at 48 kHz."""

    config: Annotated[bytes, Meta(min_length=2, max_length=64)]  # AudioSpecificConfig, ISO/IEC 14496-3
    rate_hz: Annotated[int, Meta(ge=1, le=192_000)]
    channels: Annotated[int, Meta(ge=1, le=64)]


class SourceFormat(_Part, frozen=True):
    """The open source: its pictures as they are decoded."""

    codec: Text
    width: Size
    height: Size
    pixel_format: Text
    fps: Seconds  # nominal; 0 where the source does not say
    sample_aspect_ratio: tuple[int, int]
    decoder: Text


class OutputFormat(_Part, frozen=True):
    """The upscaled pictures as they are encoded."""

    width: Size
    height: Size
    encoder: Text
    bitrate_bps: int
    on_gpu: bool  # from decoder to encoder without passing through the host's memory


class RenditionFormat(_Part, frozen=True):
    """A rendition as it is encoded while somebody watches it."""

    name: Rendition
    width: Size
    height: Size
    bitrate_bps: int  # at most


class EngineFormat(_Part, frozen=True):
    """What upscales."""

    model: Text
    backend: Text  # BICUBIC where the engine isn't there
    precision: Text
    parity_db: float | None
    scale: Count

    @property
    def super_resolution(self) -> bool:
        """Whether the network upscales."""
        return self.backend != BICUBIC


class Opened(Message, frozen=True):
    """Worker → gateway: the source is open and the engine loaded, or either has changed."""

    source: SourceFormat
    output: OutputFormat
    engine: EngineFormat
    audio: AudioFormat | None
    # Those that can be watched, the upscaled one and then the largest first; each in VP8, too.
    renditions: Annotated[tuple[RenditionFormat, ...], Meta(min_length=1, max_length=16)]

    def __post_init__(self) -> None:
        names = [form.name for form in self.renditions]
        if names[0] != UPSCALED or len(set(names)) < len(names):
            raise ValueError(f"renditions: must be {UPSCALED!r} and others, each once; they are {names}")


class GpuUse(_Part, frozen=True):
    """What a stream takes of its GPU, as measured when its engine was built."""

    frame_s: Seconds  # of the GPU's time for each frame
    engine_bytes: Annotated[int, Meta(ge=0)]  # of its memory, for all streams of the engine
    lane_bytes: Annotated[int, Meta(ge=0)]  # for the lanes of this one


class EngineLoad(Message, frozen=True):
    """Worker → gateway: how far the engine for the source's pictures is, as it changes, and with each
    heartbeat while it loads. What upscales meanwhile is in `Opened`."""

    state: LoadState
    model: Text  # as the operator named it
    width: int  # of the planes that go into the engine
    height: int
    elapsed_s: Seconds  # of loading
    detail: Text  # what is being done, or why it failed; "" where nobody says
    matrix: Matrix = "bt709"
    full_range: bool = False
    gpu: GpuUse | None = None  # where the engine is ready, and was measured on a GPU like this


class Trace(_Part, frozen=True):
    """How long a frame took in each stage of its worker, in seconds."""

    demux: Seconds  # from the arrival of its last byte until the demuxer gave it away
    decode: Seconds
    queue: Seconds
    upscale: Seconds  # 0 for the source's rendition
    encode: Seconds


class VideoPacket(Message, frozen=True):
    """Worker → gateway: one encoded frame, H.264 Annex B, SPS and PPS in front of every IDR, no B-frames;
    or a VP8 frame.

    A frame is sent in the upscaled rendition first; in the others it has the same times, and is a key frame
    where it is one in that.

    `pts` ticks at 90 kHz and `arrival_ns` is when the frame's last byte arrived; both are on CLOCK_MONOTONIC
    (pts = 90000 × monotonic seconds of presentation), so they go on unbroken over a worker's restart.
    """

    rendition: Rendition
    pts: int
    duration: int
    keyframe: bool
    arrival_ns: int
    sent_ns: int
    trace: Trace
    payload: bytes
    opening: Count = 1  # of the source, which the frame came from
    slate: bool = False  # made while nothing came from the source: it is shown, and counts as no frame


class AudioPacket(Message, frozen=True):
    """Worker → gateway: one audio frame (raw AAC access unit, or one Opus packet), on the video's timeline.

    `pts` and `duration` tick at 48 kHz on CLOCK_MONOTONIC, whatever the sample rate is.
    """

    codec: AudioCodec
    pts: int
    duration: int
    payload: bytes


class Dropped(Message, frozen=True):
    """Worker → gateway: frames that will not be shown, or packets of sound not to be heard, and why."""

    stage: Stage
    reason: DropReason
    count: Count
    sound: bool = False


class Reconnecting(Message, frozen=True):
    """Worker → gateway: the source is lost or not there yet; the worker tries again by itself."""

    reason: Text
    retry_in_s: Seconds
    opening: Annotated[int, Meta(ge=0)] = 1  # of the source, now over; its frames may still be on their way


class PictureMissing(Message, frozen=True):
    """Worker → gateway: the source is open and its sound goes on, but no picture comes."""

    reason: Text


class Stepped(Message, frozen=True):
    """Worker → gateway: from the next picture on this level of the ladder upscales; 0 is the job's model."""

    level: Level
    reason: Text


class JobImpossible(Message, frozen=True):
    """Worker → gateway, its last word: no worker can run this stream as it is (no video, wrong model …)."""

    reason: Text


class WorkerBroken(Message, frozen=True):
    """Worker → gateway, its last word: why it ends although another may do better (a GPU that failed …)."""

    reason: Text


class Heartbeat(Message, frozen=True):
    """Worker → gateway, twice a second: how full its queues are, and what it takes of the machine. Of a
    process that several streams share, each says its own part."""

    queues: dict[Stage, int]  # frames waiting
    rss_bytes: int
    cpu_s: Seconds  # user + system since start
    steady: bool = False  # below the best level of the ladder, and in time: if there is room, it may step up
    frame_cpu_s: tuple[Seconds, ...] = ()  # of all that a frame takes, by level; 0 where it isn't known
    pictures: Annotated[int, Meta(ge=0)] = 0  # that the source has given since start
    pid: Count | None = None  # of the process, on its machine
