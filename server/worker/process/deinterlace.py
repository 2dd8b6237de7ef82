"""Interlaced frames into progressive ones, by libav's bwdif: one of each frame, or one of each field."""

import av
from av.filter import Graph
from av.video.frame import VideoFrame

from server.wire.messages import Deinterlace


class Deinterlacer:
    """Frames go in as they are decoded, with their timestamps, and come out progressive.

    Frames that aren't interlaced pass as they are, at once until the first that is: from then on each waits
    for the next one, which bwdif looks at.
    """

    def __init__(self, mode: Deinterlace) -> None:
        self._mode = mode
        self._graph: Graph | None = None
        self._format: tuple[int, int, str] | None = None

    @property
    def fields(self) -> bool:
        """Whether twice as many frames come out as go in."""
        return self._graph is not None and self._mode == "field"

    def push(self, frame: VideoFrame | None) -> list[VideoFrame]:
        """The frames that this one completes; None gives those still held back."""
        if frame is None:
            return self._end()
        form = frame.width, frame.height, frame.format.name
        held: list[VideoFrame] = []
        if self._graph is not None and form != self._format:
            held = self._end()
        if self._graph is None:
            # Frames in the GPU's memory are out of its reach.
            if self._mode == "off" or not frame.interlaced_frame or frame.sw_format is not None:
                return [*held, frame]
            self._graph, self._format = self._open(frame), form
        self._graph.push(frame)
        return [*held, *self._pull(self._graph)]

    def _open(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        bwdif = graph.add("bwdif", f"mode=send_{self._mode}:parity=auto:deint=interlaced")
        sink = graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        graph.configure()
        return graph

    def _end(self) -> list[VideoFrame]:
        graph, self._graph = self._graph, None
        if graph is None:
            return []
        graph.push(None)
        return self._pull(graph)

    @staticmethod
    def _pull(graph: Graph) -> list[VideoFrame]:
        frames: list[VideoFrame] = []
        while True:
            try:
                frame = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return frames
            assert isinstance(frame, VideoFrame)
            frames.append(frame)
