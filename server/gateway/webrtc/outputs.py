"""What WebRTC viewers of a stream read from: a fan-out for each rendition, and one for the sound."""

from collections.abc import Callable

from server.gateway.fanout.fanout import Fanout, Feedback, Reader
from server.gateway.fanout.keyframes import KeyframeRequests
from server.gateway.webrtc.profile import ProfileLevel
from server.gateway.webrtc.rtp import RtpFrame, h264_frame, opus_frame
from server.wire.messages import VIDEO_CLOCK_HZ, AudioPacket, Opened, Rendition, VideoPacket

# Two seconds: behind by more, a viewer sees the present sooner by skipping.
RING_FRAMES = 64
RING_AUDIO_PACKETS = 128
_COUNTED = VIDEO_CLOCK_HZ  # ticks that a bitrate is measured over


class VideoOutput:
    """One rendition: packetised once, and only while somebody watches."""

    def __init__(
        self,
        *,
        feedback: Feedback,
        keyframes: KeyframeRequests,
        on_drop: Callable[[int], None],
        on_readers: Callable[[int], None],
    ) -> None:
        self._keyframes = keyframes
        self.fanout: Fanout[RtpFrame] = Fanout(
            capacity=RING_FRAMES,
            feedback=feedback,
            on_need_keyframe=keyframes.ask,
            on_drop=on_drop,
            on_readers=on_readers,
        )
        self.profile_level: ProfileLevel | None = None  # as of the last keyframe
        self.bitrate_bps = 0.0  # of the last seconds; 0 before there were any
        self._bytes, self._counted_since = 0, 0

    def publish(self, packet: VideoPacket) -> None:
        if packet.keyframe:
            self._keyframes.satisfied()
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


class ViewerOutputs:
    """A `Sink`, and the `Media` of its viewers; a worker's death touches nothing here."""

    def __init__(
        self,
        *,
        feedback_keyframe_every_s: float,
        keyframes: dict[Rendition, KeyframeRequests],
        on_slow_viewer: Callable[[int], None],
        on_plain_wanted: Callable[[bool], None],
    ) -> None:
        feedback = Feedback(feedback_keyframe_every_s)
        self._upscaled = VideoOutput(
            feedback=feedback,
            keyframes=keyframes["upscaled"],
            on_drop=on_slow_viewer,
            on_readers=lambda count: None,
        )
        self._plain = VideoOutput(
            feedback=feedback,
            keyframes=keyframes["plain"],
            on_drop=on_slow_viewer,
            on_readers=lambda count: on_plain_wanted(count > 0),
        )
        self._audio: Fanout[RtpFrame] = Fanout(capacity=RING_AUDIO_PACKETS, feedback=feedback)

    def join(self, rendition: Rendition | None) -> Reader[RtpFrame]:
        """A reader of this rendition; None is the sound."""
        return self._audio.join() if rendition is None else self._video(rendition).fanout.join()

    def bitrate_bps(self, rendition: Rendition) -> float:
        return self._video(rendition).bitrate_bps

    def profile_levels(self) -> dict[Rendition, ProfileLevel]:
        """What the renditions are encoded as, where that is known."""
        upscaled = self._upscaled.profile_level
        # The plain picture is made only while it is watched. The same encoder makes it, and it is smaller.
        sent: dict[Rendition, ProfileLevel | None] = {
            "upscaled": upscaled,
            "plain": self._plain.profile_level or upscaled,
        }
        return {name: level for name, level in sent.items() if level is not None}

    def opened(self, opened: Opened) -> None:
        pass  # viewers see it by the key frame

    def video(self, packet: VideoPacket) -> None:
        self._video(packet.rendition).publish(packet)

    def audio(self, packet: AudioPacket) -> None:
        if packet.codec == "opus" and len(self._audio):
            self._audio.publish(opus_frame(packet))

    def interrupted(self) -> None:
        pass  # viewers wait for what comes next

    def ended(self) -> None:
        """Ends every reader; their peers close themselves."""
        for fanout in (self._upscaled.fanout, self._plain.fanout, self._audio):
            fanout.close()

    def _video(self, rendition: Rendition) -> VideoOutput:
        return self._upscaled if rendition == "upscaled" else self._plain
