"""Whether a stream is recorded, and why not where it should be."""

import asyncio

from server.gateway.figures.metrics import StreamMetrics
from server.gateway.figures.views import RecordingState
from server.gateway.hls.segments import Segment
from server.gateway.record.archive import Archive
from server.gateway.record.recorder import Recorder
from server.gateway.streams.events import Events

_ENDS_S = 5.0  # what the last segment is given to be written


class StreamRecording:
    """The recorder of one stream while it is wanted."""

    def __init__(self, stream: str, archive: Archive | None, metrics: StreamMetrics, events: Events) -> None:
        self.state: RecordingState | None = None  # None: it isn't wanted
        self._stream = stream
        self._archive = archive
        self._metrics = metrics
        self._events = events
        self._recorder: Recorder | None = None

    def wanted(self, wanted: bool) -> None:
        if not wanted:
            self.end()
        elif self.state is None and self._archive is not None:
            self._recorder = Recorder(self._stream, self._archive, on_trouble=self._on_trouble)
            self._on_trouble("")

    def segment(self, segment: Segment) -> None:
        if self.state is not None and self._recorder is not None:
            self._recorder.segment(segment)

    def end(self) -> None:
        """What has come until now is still written."""
        if self.state is not None and self._recorder is not None:
            self._recorder.close()
            self.state = None
            self._metrics.recording(None)

    async def close(self) -> None:
        """Returns when it is."""
        self.end()
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.join, _ENDS_S)

    def _on_trouble(self, trouble: str) -> None:
        if self._recorder is None or (self.state is None and trouble):
            return  # it has ended meanwhile
        self.state = RecordingState(on=not trouble, reason=trouble)
        self._metrics.recording(not trouble)
        self._events.tell("recording", self._stream, on=not trouble, reason=trouble)
