"""HLS as one of a stream's sinks."""

from collections.abc import Callable, Collection, Sequence

from server.gateway.hls.segments import Part, Segment, Segments
from server.settings import Hls
from server.wire.messages import UPSCALED, AudioPacket, Opened, Rendition, VideoPacket


class HlsSink:
    """The segments of the upscaled rendition, while somebody watches the stream."""

    def __init__(
        self,
        settings: Hls,
        *,
        on_need_keyframe: Callable[[], None],
        on_listed: Callable[[Sequence[VideoPacket]], None],
        on_part: Callable[[Segment, Part], None],
        on_segment: Callable[[Segment], None],
    ) -> None:
        self.segments = Segments(
            settings,
            on_need_keyframe=on_need_keyframe,
            on_listed=on_listed,
            on_part=on_part,
            on_segment=on_segment,
        )
        self._watched = False

    def watch(self, renditions: Collection[Rendition]) -> None:
        """These are watched, by whichever way; what is on its way of others is not kept."""
        self._watched = bool(renditions)
        if not renditions:
            self.segments.pause()

    def opened(self, opened: Opened) -> None:
        self.segments.opened(opened)

    def video(self, packet: VideoPacket) -> None:
        if packet.rendition == UPSCALED and self._watched:
            self.segments.video(packet)

    def audio(self, packet: AudioPacket) -> None:
        if packet.codec == "aac":
            self.segments.audio(packet)

    def interrupted(self) -> None:
        self.segments.interrupt()

    def ended(self) -> None:
        """What was begun becomes the last segment."""
        self.segments.end()
