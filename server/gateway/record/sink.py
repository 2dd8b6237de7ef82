"""A stream's recording as one of its sinks: whether it is wanted, and why nothing is recorded where it is."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from server.gateway.events import Events
from server.gateway.figures.stream_metrics import StreamMetrics
from server.gateway.figures.views import RecordingState
from server.gateway.record.archive import Archive
from server.gateway.record.recorder import Recorder
from server.wire.messages import AudioPacket, Opened, VideoPacket

_ENDS_S = 5.0  # what the last fragment is given to be written


class RecordSink:
    """The recorder of one stream while it is wanted."""

    def __init__(
        self,
        stream: str,
        archive: Archive | None,
        *,
        metrics: StreamMetrics,
        events: Events,
        on_need_keyframe: Callable[[], None],
    ) -> None:
        self.state: RecordingState | None = None  # None: it isn't wanted
        self._stream = stream
        self._archive = archive
        self._metrics = metrics
        self._events = events
        self._on_need_keyframe = on_need_keyframe
        self._opened: Opened | None = None
        self._recorder: Recorder | None = None
        self._ending: Recorder | None = None  # the last that was ended

    def wanted(self, wanted: bool) -> None:
        if not wanted:
            self.ended()
        elif self.state is None and self._archive is not None:
            self._recorder = Recorder(self._stream, self._archive, on_trouble=self._on_trouble)
            self._on_trouble("")
            if self._opened is not None:
                self._recorder.opened(self._opened)
                self._on_need_keyframe()

    def opened(self, opened: Opened) -> None:
        self._opened = opened
        if self._recorder is not None:
            self._recorder.opened(opened)

    def video(self, packet: VideoPacket) -> None:
        if self._recorder is not None:
            self._recorder.video(packet)

    def audio(self, packet: AudioPacket) -> None:
        if self._recorder is not None:
            self._recorder.audio(packet)

    def interrupted(self) -> None:
        if self._recorder is not None:
            self._recorder.interrupted()

    def ended(self) -> None:
        """What has come until now is still written."""
        if self._recorder is not None:
            self._recorder.close()
            self._ending, self._recorder = self._recorder, None
            self.state = None
            self._metrics.recording(None)

    async def close(self) -> None:
        """Returns when it is."""
        self.ended()
        if self._ending is not None:
            await asyncio.to_thread(self._ending.join, _ENDS_S)

    def _on_trouble(self, trouble: str) -> None:
        self.state = RecordingState(on=not trouble, since=datetime.now(UTC), reason=trouble)
        self._metrics.recording(not trouble)
        self._events.tell("recording", self._stream, on=not trouble, reason=trouble)
