"""One stream's figures, for Prometheus and for the API alike."""

import time
from collections.abc import Callable, Mapping, Sequence

from server.gateway.figures.players import Players
from server.gateway.figures.recent import RecentFrames
from server.gateway.figures.stream_metrics import StreamMetrics
from server.gateway.figures.views import FramesView, WorkerView
from server.gateway.placement import Elsewhere, WorkerHandle
from server.wire.budget import usual_budget_s
from server.wire.messages import VIDEO_CLOCK_HZ, Dropped, Heartbeat, Stage, VideoPacket

Trace = Callable[[VideoPacket, Mapping[Stage, float], int], str | None]


class Figures:
    """Counts what happens to a stream since it was created."""

    def __init__(self, metrics: StreamMetrics, *, budget_s: float, trace: Trace | None = None) -> None:
        """`budget_s`: what a frame's latency may be; 0 is the usual one. `trace` makes a trace of a frame if
        it is to have one, and returns its id."""
        self.metrics = metrics
        self.budget_s = budget_s
        self._trace = trace
        self.recent = RecentFrames()
        self.reconnects = 0
        self.restarts = 0
        self.whep_viewers = 0
        self.hls_players = Players()
        metrics.hls_viewers.set_function(lambda: self.hls_players.count(time.monotonic()))
        self._frames = 0
        self._dropped: dict[str, int] = {}
        self.last_heartbeat: Heartbeat | None = None  # of the running worker
        self._worker: WorkerHandle | None = None  # the last that was started

    def frame_out(self, packet: VideoPacket) -> None:
        """Counts a frame; called when its first bytes are with every viewer."""
        now_ns = time.monotonic_ns()
        trace = packet.trace
        stages_s: dict[Stage, float] = {
            "demux": trace.demux,
            "decode": trace.decode,
            "queue": trace.queue,
            "upscale": trace.upscale,
            "encode": trace.encode,
            "publish": (now_ns - packet.sent_ns) / 1e9,
        }
        latency_s = (now_ns - packet.arrival_ns) / 1e9
        self._frames += 1
        self.recent.add(now_ns / 1e9, stages_s, latency_s)
        budget_s = self.budget_s or usual_budget_s(packet.duration / VIDEO_CLOCK_HZ)
        # What a demuxer holds back, as segments of HLS, is the source's own delay.
        late = latency_s - trace.demux > budget_s
        trace_id = self._trace(packet, stages_s, now_ns) if self._trace else None
        self.metrics.frame(stages_s, latency_s, budget_s, late, trace_id)

    def segment_listed(self, frames: Sequence[VideoPacket]) -> None:
        """Measures the frames of an HLS segment; called as players can have it."""
        now_ns = time.monotonic_ns()
        latencies_s = [(now_ns - frame.arrival_ns) / 1e9 for frame in frames]
        self.recent.add_listed(latencies_s)
        self.metrics.listed(latencies_s)

    def drop(self, dropped: Dropped) -> None:
        if dropped.sound:
            self.metrics.drop_sound(dropped)
            return
        key = f"{dropped.stage}/{dropped.reason}"
        self._dropped[key] = self._dropped.get(key, 0) + dropped.count
        self.metrics.drop(dropped)

    def reconnecting(self) -> None:
        self.reconnects += 1
        self.metrics.reconnects.inc()

    def restarted(self) -> None:
        self.restarts += 1
        self.metrics.restarts.inc()

    def count_viewer(self, change: int) -> None:
        self.whep_viewers += change
        self.metrics.whep_viewers.set(self.whep_viewers)

    def worker_started(self, worker: WorkerHandle) -> None:
        self.last_heartbeat = None
        self._worker = worker
        self.metrics.worker_started(isolated=worker.isolated)
        self.metrics.elsewhere(worker.elsewhere)

    def heartbeat(self, beat: Heartbeat) -> None:
        self.last_heartbeat = beat
        self.metrics.heartbeat(beat)
        if (place := self.elsewhere) is not None:
            self.metrics.elsewhere(place)

    @property
    def elsewhere(self) -> Elsewhere | None:
        """Where the worker is, that isn't on this machine."""
        return self._worker.elsewhere if self._worker is not None else None

    def frames_view(self) -> FramesView:
        return FramesView(total=self._frames, dropped=dict(self._dropped))

    def worker_view(self) -> WorkerView:
        beat, worker, place = self.last_heartbeat, self._worker, self.elsewhere
        return WorkerView(
            restarts=self.restarts,
            isolated=worker is not None and worker.isolated,
            node=place.node if place else None,
            pid=beat.pid if beat else None,
            rss_bytes=beat.rss_bytes if beat else 0,
            cpu_s=beat.cpu_s if beat else 0.0,
            queues=dict(beat.queues) if beat else {},
        )
