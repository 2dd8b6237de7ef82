"""Everything one stream's packets go to: a fan-out for each rendition, one for sound, and HLS."""

from collections.abc import Callable, Sequence

from server.gateway.fanout.fanout import Fanout, Feedback, Reader
from server.gateway.fanout.keyframes import KeyframeRequests
from server.gateway.hls.segments import Part, Segment, Segments
from server.gateway.webrtc.profile import ProfileLevel
from server.gateway.webrtc.rtp import RtpFrame, h264_frame, opus_frame
from server.settings import Hls
from server.wire.messages import VIDEO_CLOCK_HZ, AudioPacket, Rendition, VideoPacket

# Two seconds: behind by more, a viewer sees the present sooner by skipping.
RING_FRAMES = 64
RING_AUDIO_PACKETS = 128
_COUNTED = VIDEO_CLOCK_HZ  # ticks that a bitrate is measured over


class VideoOutput:
    """One rendition for WebRTC viewers: packetised once, and only while somebody watches."""

    def __init__(
        self,
        *,
        feedback: Feedback,
        on_request_keyframe: Callable[[], None],
        on_drop: Callable[[int], None],
        on_readers: Callable[[int], None],
    ) -> None:
        self.keyframes = KeyframeRequests(on_request_keyframe)
        self.fanout: Fanout[RtpFrame] = Fanout(
            capacity=RING_FRAMES,
            feedback=feedback,
            on_need_keyframe=self.keyframes.ask,
            on_drop=on_drop,
            on_readers=on_readers,
        )
        self.profile_level: ProfileLevel | None = None  # as of the last keyframe
        self.bitrate_bps = 0.0  # of the last seconds; 0 before there were any
        self._bytes, self._counted_since = 0, 0

    def publish(self, packet: VideoPacket) -> None:
        if packet.keyframe:
            self.keyframes.satisfied()
            self.profile_level = ProfileLevel.of(packet.payload) or self.profile_level
        self._count(packet)
        if len(self.fanout):
            self.fanout.publish(h264_frame(packet))

    def _count(self, packet: VideoPacket) -> None:
        lasted = packet.pts - self._counted_since
        if not 0 <= lasted <= 2 * _COUNTED:  # it was not made for a while
            self._bytes, self._counted_since = 0, packet.pts
        elif lasted > _COUNTED:
            bitrate_bps = self._bytes * 8 * VIDEO_CLOCK_HZ / lasted
            self.bitrate_bps = (self.bitrate_bps or bitrate_bps) * 0.5 + bitrate_bps * 0.5
            self._bytes, self._counted_since = 0, packet.pts
        self._bytes += len(packet.payload)


class Outputs:
    """Made with its stream, closed with it; a worker's death touches nothing here."""

    def __init__(
        self,
        hls: Hls,
        *,
        feedback_keyframe_every_s: float,
        on_request_keyframe: Callable[[Rendition], None],
        on_slow_viewer: Callable[[int], None],
        on_plain_wanted: Callable[[bool], None],
        on_listed: Callable[[Sequence[VideoPacket]], None],
        on_part: Callable[[Segment, Part], None],
        on_segment: Callable[[Segment], None],
    ) -> None:
        feedback = Feedback(feedback_keyframe_every_s)
        self.upscaled = VideoOutput(
            feedback=feedback,
            on_request_keyframe=lambda: on_request_keyframe("upscaled"),
            on_drop=on_slow_viewer,
            on_readers=lambda count: None,
        )
        self.plain = VideoOutput(
            feedback=feedback,
            on_request_keyframe=lambda: on_request_keyframe("plain"),
            on_drop=on_slow_viewer,
            on_readers=lambda count: on_plain_wanted(count > 0),
        )
        self.hls = Segments(
            hls,
            on_need_keyframe=self.upscaled.keyframes.ask,
            on_listed=on_listed,
            on_part=on_part,
            on_segment=on_segment,
        )
        self.audio: Fanout[RtpFrame] = Fanout(capacity=RING_AUDIO_PACKETS, feedback=feedback)

    def join(self, rendition: Rendition | None) -> Reader[RtpFrame]:
        """A reader of this rendition; None is the sound."""
        return self.audio.join() if rendition is None else self._video(rendition).fanout.join()

    def bitrate_bps(self, rendition: Rendition) -> float:
        return self._video(rendition).bitrate_bps

    def profile_levels(self) -> dict[Rendition, ProfileLevel]:
        """What the renditions are encoded as, where that is known."""
        upscaled = self.upscaled.profile_level
        # The plain picture is made only while it is watched. The same encoder makes it, and it is smaller.
        sent: dict[Rendition, ProfileLevel | None] = {
            "upscaled": upscaled,
            "plain": self.plain.profile_level or upscaled,
        }
        return {name: level for name, level in sent.items() if level is not None}

    def publish_video(self, packet: VideoPacket, *, hls: bool) -> None:
        """`hls`: the segment that it belongs to goes on."""
        self._video(packet.rendition).publish(packet)
        if packet.rendition == "upscaled" and hls:
            self.hls.video(packet)

    def publish_audio(self, packet: AudioPacket) -> None:
        if packet.codec == "aac":
            self.hls.audio(packet)
        elif len(self.audio):
            self.audio.publish(opus_frame(packet))

    def close(self) -> None:
        """Ends HLS with what was begun, and every reader; their peers close themselves."""
        self.hls.end()
        for fanout in (self.upscaled.fanout, self.plain.fanout, self.audio):
            fanout.close()

    def _video(self, rendition: Rendition) -> VideoOutput:
        return self.upscaled if rendition == "upscaled" else self.plain
