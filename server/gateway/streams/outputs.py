"""Everything one stream's packets go to."""

from collections.abc import Callable, Collection, Sequence

from server.gateway.errors import RenditionNotFound
from server.gateway.fanout.keyframes import KeyframeRequests
from server.gateway.fanout.sinks import Sink
from server.gateway.hls.segments import Part, Segment
from server.gateway.hls.sink import HlsSink
from server.gateway.webrtc.outputs import ViewerOutputs
from server.settings import Hls
from server.wire.messages import AudioPacket, Opened, Rendition, VideoPacket


class Outputs:
    """The sinks of a stream, made with it and ended with it; itself one."""

    def __init__(
        self,
        hls: Hls,
        renditions: Sequence[Rendition],
        *,
        feedback_keyframe_every_s: float,
        on_request_keyframe: Callable[[], None],
        on_slow_viewer: Callable[[int], None],
        on_joined: Callable[[Collection[Rendition]], None],
        on_listed: Callable[[Sequence[VideoPacket]], None],
        on_part: Callable[[Segment, Part], None],
        on_segment: Callable[[Segment], None],
    ) -> None:
        keyframes = KeyframeRequests(on_request_keyframe)
        self.webrtc = ViewerOutputs(
            renditions,
            feedback_keyframe_every_s=feedback_keyframe_every_s,
            keyframes=keyframes,
            on_slow_viewer=on_slow_viewer,
            on_joined=on_joined,
        )
        self.hls = HlsSink(
            hls,
            on_need_keyframe=keyframes.ask,
            on_listed=on_listed,
            on_part=on_part,
            on_segment=on_segment,
        )
        self._sinks: tuple[Sink, ...] = (self.webrtc, self.hls)

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
