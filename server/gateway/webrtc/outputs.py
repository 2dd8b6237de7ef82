"""What WebRTC viewers of a stream read from: a fan-out for each rendition, and one for the sound."""

import math
from collections.abc import Callable, Collection, Sequence

from server.gateway.fanout.fanout import Fanout, Feedback, Reader
from server.gateway.fanout.keyframes import KeyframeRequests
from server.gateway.webrtc.pacer import Pacer
from server.gateway.webrtc.profile import ProfileLevel
from server.gateway.webrtc.rtp import RtpFrame, h264_frame, opus_frame, vp8_frame
from server.wire.messages import (
    UPSCALED,
    VIDEO_CLOCK_HZ,
    AudioPacket,
    Opened,
    Rendition,
    RenditionFormat,
    VideoPacket,
)
from server.wire.renditions import in_vp8, is_vp8, picture_of

# Two seconds: behind by more, a viewer sees the present sooner by skipping.
RING_FRAMES = 64
RING_AUDIO_PACKETS = 128
# Fewer pixels take more bits each, of the same picture and quality.
_SHARE_POWER = 0.75
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
        packetize: Callable[[VideoPacket], RtpFrame],
    ) -> None:
        self._keyframes = keyframes
        self._packetize = packetize
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

    def is_made_with(self, other: "VideoOutput") -> bool:
        """Whether both have had pictures lately."""
        return abs(self._counted_since - other._counted_since) <= 2 * _COUNTED

    def publish(self, packet: VideoPacket) -> None:
        if packet.keyframe:
            self._keyframes.satisfied()
            if not is_vp8(packet.rendition):
                self.profile_level = ProfileLevel.of(packet.payload) or self.profile_level
        self._count(packet)
        if len(self.fanout):
            self.fanout.publish(self._packetize(packet))

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
        renditions: Sequence[Rendition],
        *,
        feedback_keyframe_every_s: float,
        keyframes: KeyframeRequests,
        on_slow_viewer: Callable[[int], None],
        on_joined: Callable[[Collection[Rendition]], None],
    ) -> None:
        """`renditions`: as the settings name them. `on_joined` hears which have viewers, as that changes."""
        self.pacer = Pacer()
        self._feedback = Feedback(feedback_keyframe_every_s)
        self._keyframes = keyframes
        self._on_slow_viewer = on_slow_viewer
        self._on_joined = on_joined
        self._formats: dict[Rendition, RenditionFormat] = {}
        self._videos: dict[Rendition, VideoOutput] = {}
        self._audio: Fanout[RtpFrame] = Fanout(capacity=RING_AUDIO_PACKETS, feedback=self._feedback)
        self._joined: set[Rendition] = set()
        self._picture_id, self._identified = 0, 0  # of the picture with that time, in VP8 of every size
        self.offer(renditions)

    def offer(self, renditions: Sequence[Rendition]) -> None:
        """These can be watched. Who watches another is sent away: its player comes back for one of these."""
        self.renditions = tuple(renditions)
        in_both = (*renditions, *map(in_vp8, renditions))
        for name in self._videos.keys() - set(in_both):
            self._videos.pop(name).fanout.close()
        for name in in_both:
            if name not in self._videos:
                self._videos[name] = self._output(name)

    def _output(self, name: Rendition) -> VideoOutput:
        def on_readers(count: int) -> None:
            joined = self._joined | {name} if count else self._joined - {name}
            if joined != self._joined:
                self._joined = joined
                self._on_joined(joined)

        return VideoOutput(
            feedback=self._feedback,
            keyframes=self._keyframes,
            on_drop=self._on_slow_viewer,
            on_readers=on_readers,
            packetize=self._vp8_frame if is_vp8(name) else h264_frame,
        )

    def _vp8_frame(self, packet: VideoPacket) -> RtpFrame:
        # A viewer that goes from one size to another finds the next picture, by the next number.
        if packet.pts > self._identified:
            self._identified = packet.pts
            self._picture_id += 1
        return vp8_frame(packet, self._picture_id)

    def join(self, rendition: Rendition | None) -> Reader[RtpFrame]:
        """A reader of this rendition, closed where there is none now; None is the sound."""
        if rendition is None:
            return self._audio.join()
        video = self._videos.get(rendition)
        if video is None:
            video = self._output(rendition)
            video.fanout.close()
        return video.fanout.join()

    def bitrate_bps(self, rendition: Rendition) -> float:
        """As it is measured; where it isn't made now, what it would take beside the upscaled one. 0: nobody
        knows."""
        video, upscaled = self._videos.get(rendition), self._videos[UPSCALED]
        if video is not None and video.bitrate_bps and video.is_made_with(upscaled):
            return video.bitrate_bps
        form, whole = self._formats.get(picture_of(rendition)), self._formats.get(UPSCALED)
        if form is None or whole is None:
            return 0.0
        share = (form.width * form.height) / (whole.width * whole.height)
        whole_bps = upscaled.bitrate_bps or float(whole.bitrate_bps)
        return min(float(form.bitrate_bps), whole_bps * math.pow(share, _SHARE_POWER))

    def profile_levels(self) -> dict[Rendition, ProfileLevel]:
        """What the renditions are encoded as in H.264, where that is known."""
        upscaled = self._videos[UPSCALED].profile_level
        # The same encoder makes the smaller ones, while somebody watches.
        sent = {name: self._videos[name].profile_level or upscaled for name in self.renditions}
        return {name: level for name, level in sent.items() if level is not None}

    def opened(self, opened: Opened) -> None:
        self._formats = {form.name: form for form in opened.renditions}
        self.offer([form.name for form in opened.renditions])

    def video(self, packet: VideoPacket) -> None:
        if video := self._videos.get(packet.rendition):
            video.publish(packet)

    def audio(self, packet: AudioPacket) -> None:
        if packet.codec == "opus" and len(self._audio):
            self._audio.publish(opus_frame(packet))

    def interrupted(self) -> None:
        pass  # viewers wait for what comes next

    def ended(self) -> None:
        """Ends every reader, and those to come; their peers close themselves."""
        for fanout in (self._audio, *(video.fanout for video in self._videos.values())):
            fanout.close()
