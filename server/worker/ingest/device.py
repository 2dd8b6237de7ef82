"""A video device of this machine as a source, by Video4Linux; it has no sound."""

import errno
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer

from server.wire.v4l2 import V4l2Device
from server.worker.ingest.container import LOW_LATENCY, find_tracks, packets_of, pixel_limit, tracks_of
from server.worker.ingest.source import Arrival, SourceLost, SourceUnusable, Times, Tracks

_REASONS = {
    errno.ENOENT: "there is no such device",
    errno.ENODEV: "the device has gone",
    errno.EBUSY: "another program uses it",
    errno.EACCES: "permission denied: who runs the service must be in the group 'video'",
    errno.EPERM: "permission denied",
}
# The driver's words for a size, rate or format that it has not.
_WISHES = (errno.EINVAL, errno.ENOSYS)


class DeviceSource:
    """What a driver has not it replaces by what is next to it, but for the format."""

    def __init__(
        self, device: V4l2Device, *, max_size: tuple[int, int], timeout_s: float, stop: threading.Event
    ) -> None:
        self._device = device
        self._options = pixel_limit(max_size) | LOW_LATENCY
        self._timeout_s = timeout_s
        self._stop = stop
        self._container: InputContainer | None = None

    def open(self) -> Tracks:
        """Raises SourceLost for a device that may be plugged in later or is in use, SourceUnusable for what
        is none or has no such format."""
        path = self._device.path
        try:
            if not stat.S_ISCHR(Path(path).stat().st_mode):
                raise SourceUnusable(f"{path}: is no device")
            self._container = av.open(
                path,
                format="v4l2",
                options=self._options,
                container_options=self._device.options,  # a decoder would take `video_size` for its own
                timeout=(self._timeout_s, None),
            )
            video, _ = find_tracks(self._container)
        except MemoryError:
            raise
        except (av.FFmpegError, OSError) as exc:
            if exc.errno == errno.ENOTTY:
                raise SourceUnusable(f"{path}: is no video device") from exc
            if exc.errno in _WISHES:
                asked = self._device.asked or "format that is known"
                raise SourceUnusable(f"{path}: the device has no {asked}") from exc
            raise self._lost(exc) from exc
        except LookupError as exc:
            raise SourceUnusable(f"{path}: {exc}") from exc
        return tracks_of(video, None)

    def arrivals(self) -> Iterator[Arrival]:
        """Never ends by itself: where the device does, SourceLost is raised."""
        assert self._container is not None
        video, _ = find_tracks(self._container)
        try:
            for _, packet in packets_of(self._container, video, []):
                if self._stop.is_set():
                    return
                if packet.size:
                    yield Arrival(video=True, packet=packet, times=Times.now(None))
        except MemoryError:
            raise
        except av.FFmpegError as exc:
            raise self._lost(exc) from exc
        raise SourceLost(f"{self._device.path}: the device has gone")

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def _lost(self, exc: av.FFmpegError | OSError) -> SourceLost:
        reason = _REASONS.get(exc.errno or 0) or exc.strerror or type(exc).__name__
        return SourceLost(f"{self._device.path}: {reason}")
