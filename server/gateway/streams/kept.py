"""Streams that the API made, in a file that a restart reads: SQLite, its owner's alone, as it has secrets."""

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

_APPLICATION = 0x6C767372  # "lvsr", in the file's header
_VERSION = 1
_SCHEMA = "CREATE TABLE streams (id TEXT PRIMARY KEY NOT NULL, created TEXT NOT NULL, given TEXT NOT NULL)"


class CantBeKept(OSError):
    """The file can't be opened or written."""


class _Damaged(Exception):
    """What the file holds is not what was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStream:
    """`given` is what the API was given, without the operator's defaults, which may be others by then."""

    id: str
    created: datetime
    given: dict[str, Any]


class KeptStreams:
    """Every change is whole and on the disk once it returns. A thread of its own does the waiting."""

    def __init__(self, path: Path) -> None:
        """Raises CantBeKept, and ValueError for a file that is damaged or not ours: it stays as it is."""
        self.path = path
        try:
            # SQLite gives its other files the mode of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            path.chmod(0o600)
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.OperationalError) as exc:
            raise CantBeKept(f"{path}: streams can't be kept there: {exc}") from exc
        try:
            self._open()
            self.at_start = self._read()
        except sqlite3.OperationalError as exc:
            self._database.close()
            why = f"another service has it ({exc})" if "locked" in str(exc) else str(exc)
            raise CantBeKept(f"{path}: streams can't be kept there: {why}") from exc
        except (sqlite3.DatabaseError, _Damaged) as exc:
            self._database.close()
            raise ValueError(
                f"{path}: the file with the streams (server.state) is damaged: {exc}; "
                "moved away, the service starts without the streams that the API made"
            ) from exc
        except ValueError:  # it is none of ours
            self._database.close()
            raise
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kept")

    async def put(self, stream: KeptStream) -> None:
        """Raises CantBeKept."""
        row = stream.id, stream.created.isoformat(), json.dumps(stream.given)
        await self._run(
            lambda: self._database.execute("INSERT OR REPLACE INTO streams VALUES (?, ?, ?)", row)
        )

    async def remove(self, stream: str) -> None:
        """Raises CantBeKept."""
        await self._run(lambda: self._database.execute("DELETE FROM streams WHERE id = ?", (stream,)))

    def close(self) -> None:
        self._thread.shutdown()
        self._database.close()

    async def _run(self, change: Callable[[], object]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, change)
        except sqlite3.Error as exc:
            raise CantBeKept(f"{self.path}: {exc}") from exc

    def _open(self) -> None:
        database = self._database
        database.execute("PRAGMA locking_mode = EXCLUSIVE")  # two services would run each stream twice
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != _APPLICATION and (application or version or tables):
            raise ValueError(f"{self.path}: is a database of something else, not the streams of livesr")
        if version > _VERSION:
            raise ValueError(
                f"{self.path}: was written by a later livesr (version {version}, not {_VERSION})"
            )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN IMMEDIATE")
        if version == 0:
            database.execute(_SCHEMA)
            database.execute(f"PRAGMA application_id = {_APPLICATION}")
            database.execute(f"PRAGMA user_version = {_VERSION}")
        database.execute("COMMIT")

    def _read(self) -> list[KeptStream]:
        (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise _Damaged(found)
        try:
            rows = self._database.execute(
                "SELECT id, created, given FROM streams ORDER BY created"
            ).fetchall()
            return [_stream(*row) for row in rows]
        except (sqlite3.OperationalError, TypeError, ValueError) as exc:
            raise _Damaged(str(exc)) from exc


def _stream(name: str, created: str, text: str) -> KeptStream:
    given = json.loads(text)
    if not isinstance(given, dict):
        raise ValueError(f"stream {name!r} is no object")
    return KeptStream(id=name, created=datetime.fromisoformat(created), given=given)
