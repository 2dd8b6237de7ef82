"""Keeps recordings within their bounds, in a thread of its own: whether anything is recorded now or not."""

import threading

from server.gateway.record.archive import Archive
from server.wire.logs import get_logger

log = get_logger(__name__)

_TIDY_S = 60.0
_ENDS_S = 5.0


class Tidier:
    """Deletes what is in the folder; the uploader does so elsewhere."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tidy", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Blocks for a moment."""
        self._stop.set()
        self._thread.join(_ENDS_S)

    def _run(self) -> None:
        while True:
            try:
                self._archive.make_room()
            except OSError as exc:
                log.error("recordings not deleted", reason=str(exc))
            if self._stop.wait(_TIDY_S):
                return
