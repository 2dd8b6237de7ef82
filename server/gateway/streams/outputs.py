"""Everything one stream's packets go to."""

import asyncio
from collections.abc import Callable, Collection, Sequence

from server.gateway.errors import RenditionNotFound
from server.gateway.events import Events
from server.gateway.fanout.keyframes import KeyframeRequests
from server.gateway.fanout.sinks import Sink
from server.gateway.figures.stream_metrics import StreamMetrics
from server.gateway.hls.sink import HlsSink
from server.gateway.push.sink import PushSink
from server.gateway.record.archive import Archive
from server.gateway.record.sink import RecordSink
from server.gateway.relay.sink import RelaySink
from server.gateway.snapshots.pictures import LatestPictures
from server.gateway.webrtc.outputs import ViewerOutputs
from server.settings import Hls, StreamSettings
from server.wire.messages import AudioPacket, Opened, Rendition, VideoPacket


class Outputs:
    """The sinks of a stream, made with it and ended with it; itself one."""

    def __init__(
        self,
        settings: StreamSettings,
        *,
        hls: Hls,
        archive: Archive | None,
        metrics: StreamMetrics,
        events: Events,
        feedback_keyframe_every_s: float,
        on_request_keyframe: Callable[[], None],
        on_slow_viewer: Callable[[int], None],
        on_joined: Callable[[Collection[Rendition]], None],
        on_listed: Callable[[Sequence[VideoPacket]], None],
    ) -> None:
        keyframes = KeyframeRequests(on_request_keyframe)
        ask = keyframes.ask
        self.webrtc = ViewerOutputs(
            settings.renditions,
            feedback_keyframe_every_s=feedback_keyframe_every_s,
            keyframes=keyframes,
            on_slow_viewer=on_slow_viewer,
            on_joined=on_joined,
        )
        self.hls = HlsSink(hls, on_need_keyframe=ask, on_listed=on_listed)
        self.record = RecordSink(settings.id, archive, metrics=metrics, events=events, on_need_keyframe=ask)
        self.push = PushSink(settings.id, metrics=metrics, events=events, on_need_keyframe=ask)
        self.relay = RelaySink(metrics=metrics, on_need_keyframe=ask, on_drop=on_slow_viewer)
        self.pictures = LatestPictures()
        self._sinks: tuple[Sink, ...] = (
            *(self.webrtc, self.hls, self.record, self.push),
            *(self.relay, self.pictures),
        )

    def wanted(self, settings: StreamSettings) -> None:
        """What the stream goes to beside its viewers."""
        self.record.wanted(settings.record)
        self.push.wanted(settings.push)

    def require(self, rendition: Rendition) -> None:
        """Raises RenditionNotFound for one that the stream doesn't have."""
        renditions = self.webrtc.renditions
        if rendition not in renditions:
            raise RenditionNotFound(f"no rendition {rendition!r}; the stream has {', '.join(renditions)}")

    def play(self, renditions: Collection[Rendition]) -> None:
        """Of these there are to be HLS segments."""
        self.hls.watch(renditions)

    def opened(self, opened: Opened) -> None:
        for sink in self._sinks:
            sink.opened(opened)

    def video(self, packet: VideoPacket) -> None:
        for sink in self._sinks:
            sink.video(packet)

    def audio(self, packet: AudioPacket) -> None:
        for sink in self._sinks:
            sink.audio(packet)

    def interrupted(self) -> None:
        for sink in self._sinks:
            sink.interrupted()

    def ended(self) -> None:
        for sink in self._sinks:
            sink.ended()

    async def close(self) -> None:
        """Ends them, and returns when no thread and no process of theirs is left."""
        self.ended()
        await asyncio.gather(self.record.close(), self.push.close())
