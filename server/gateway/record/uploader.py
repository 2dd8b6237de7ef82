"""Takes finished recordings from the folder to `recording.remote`, in a thread of its own."""

import random
import threading
import time

from server.gateway.figures.views import UploadState
from server.gateway.record.archive import Archive
from server.gateway.record.file import RecordedFile
from server.gateway.record.index import Index
from server.gateway.record.remote import Remote
from server.wire.logs import get_logger
from server.wire.urls import mask_credentials

log = get_logger(__name__)

_LOOK_S = 5.0
_LIST_S = 600.0  # somebody else may delete there, too
_FIRST_RETRY_S, _LAST_RETRY_S = 5.0, 300.0
_ENDS_S = 5.0  # what an upload is given to end; its file stays here, and is sent by the next run


class Uploader:
    """The oldest first. Where nothing can be sent the files stay here, as long as others do: `keep_s`,
    `keep_bytes` and `free_bytes` are in force."""

    def __init__(self, archive: Archive, index: Index, remote: Remote) -> None:
        self._archive = archive
        self._index = index
        self._remote = remote
        self.state = UploadState(waiting=0, waiting_bytes=0, reason="")  # as of the last look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Blocks for a moment."""
        self._stop.set()
        self._thread.join(_ENDS_S)

    def _waiting(self) -> list[RecordedFile]:
        """What there is to send, the oldest first."""
        files = sorted(self._archive.finished(), key=lambda file: file.starts)
        self._now(waiting=len(files), waiting_bytes=sum(file.size for file in files))
        return files

    def _run(self) -> None:
        retry_s, list_at_s = _FIRST_RETRY_S, 0.0
        wait_s = 0.0
        while not self._stop.wait(wait_s):
            try:
                if time.monotonic() >= list_at_s:
                    self._remote.look()
                    list_at_s = time.monotonic() + _LIST_S
                while (waiting := self._waiting()) and not self._stop.is_set():
                    self._send(waiting[0])
                    self._tell("")
                self._archive.make_room(remote=True)
            except OSError as exc:
                self._tell(exc.strerror or str(exc))
                wait_s = retry_s * random.uniform(0.75, 1.25)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)
            except Exception:  # a bug of ours; what is recorded stays here
                log.exception("upload failed")
                self._tell("the upload failed; the gateway's log says why")
                wait_s = _LAST_RETRY_S
            else:
                self._tell("")  # where nothing waited, too
                wait_s, retry_s = _LOOK_S, _FIRST_RETRY_S

    def _send(self, file: RecordedFile) -> None:
        try:
            indexed = self._index.read(file)
            self._remote.upload(file, str(self._archive.path(file)), list(indexed.runs) if indexed else [])
        except OSError:
            if not self._archive.path(file).exists():
                return  # it was deleted meanwhile
            raise
        try:
            self._archive.path(file).unlink()
        except FileNotFoundError:  # it was deleted meanwhile, and is to be nowhere
            self._remote.delete(file)
            return
        log.info("recording sent", stream=file.stream, file=file.name, target=self._remote.address)

    def _tell(self, reason: str) -> None:
        reason = mask_credentials(reason)  # a driver's words may be an address, and the API shows them
        if reason == self.state.reason:
            return
        self._now(reason=reason)
        if reason:
            log.error("recordings not sent", target=self._remote.address, reason=reason)
        else:
            log.info("recordings sent again", target=self._remote.address)

    def _now(self, **state: int | str) -> None:
        self.state = self.state.model_copy(update=state)
