"""How much of the service anybody may take; each key's reason is in deploy/livesr.toml."""

from pydantic import Field, field_validator

from server.settings.table import Table


class Limits(Table):
    max_streams: int = Field(default=16, ge=1)
    max_width: int = Field(default=1920, ge=16, le=8192)  # of a source picture
    max_height: int = Field(default=1080, ge=16, le=8192)
    max_viewers_per_stream: int = Field(default=200, ge=1)
    max_connections: int = Field(default=4096, ge=1)
    max_connections_per_address: int = Field(default=128, ge=1)
    client_timeout_s: float = Field(default=10.0, gt=0, le=300)
    max_header_bytes: int = Field(default=16_384, ge=1024, le=65_536)
    max_body_bytes: int = Field(default=65_536, ge=4096)
    # Of an address. A player with low latency makes six or seven a second, and an office has many.
    hls_requests_per_s: float = Field(default=400.0, gt=0)
    failed_logins_per_min: float = Field(default=30.0, gt=0)  # of an address
    max_listeners: int = Field(default=64, ge=1)  # to /api/events
    max_listeners_per_address: int = Field(default=16, ge=1)
    # One address may be an office or a proxy, but must not take every seat, nor hold many without connecting.
    max_viewers_per_address: int = Field(default=100, ge=1)
    max_pending_per_address: int = Field(default=32, ge=1)
    # Of one WebRTC viewer. Each makes us send packets to an address that the viewer chooses.
    max_candidates: int = Field(default=20, ge=1, le=100)
    ice_timeout_s: float = Field(default=8.0, gt=0, le=60)  # a viewer unreachable for so long loses its seat
    max_publisher_bps: int = Field(default=20_000_000, ge=100_000)  # of one WebRTC publisher
    # What the feedback of all viewers of one stream may cost it; they get the others' key frames, too.
    feedback_keyframe_every_s: float = Field(default=2.0, ge=0.5, le=60)
    # Of a source that has not been opened yet: 640×360 at 25 frames a second.
    assumed_pixels_per_s: float = Field(default=5_760_000, gt=0)
    # Of the machine's CPU time, that streams may take with their smallest networks; 0: none is measured.
    usable_share: float = Field(default=0.9, ge=0, le=1)
    worker_memory_bytes: int = Field(default=8 << 30, ge=0)  # the largest model at 1080p takes 2.7 GB

    @field_validator("worker_memory_bytes")
    @classmethod
    def _enough_to_start(cls, most: int) -> int:
        if 0 < most < 1 << 29:
            raise ValueError(f"must be 0 or at least {1 << 29}: a worker takes 0.35 GB for the least picture")
        return most
