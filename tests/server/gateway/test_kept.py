"""The file of the API's streams: whole, private, and never overwritten where it isn't understood."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.gateway.streams.kept import CantBeKept, KeptStream, KeptStreams
from tests.server.gateway.scripted_gateway import gateway

SECRET = "rtsp://user:secret@camera.example/1"


def stream(name: str, seconds: int = 0, **given) -> KeptStream:
    created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return KeptStream(id=name, created=created, given={"id": name, "source": SECRET, **given})


async def filled(path: Path, *streams: KeptStream) -> None:
    with closing(KeptStreams(path)) as kept:
        for one in streams:
            await kept.put(one)


def found(path: Path) -> list[KeptStream]:
    with closing(KeptStreams(path)) as kept:
        return kept.at_start


async def test_what_is_put_is_found_in_the_order_of_its_making(tmp_path):
    path = tmp_path / "streams.db"
    await filled(path, stream("b", 1), stream("a", 2, lanes=2, ladder=["bicubic"]), stream("c"))
    assert found(path) == [stream("c"), stream("b", 1), stream("a", 2, lanes=2, ladder=["bicubic"])]
    with closing(KeptStreams(path)) as kept:
        await kept.remove("b")
        await kept.put(stream("c", lanes=3))
    assert found(path) == [stream("c", lanes=3), stream("a", 2, lanes=2, ladder=["bicubic"])]


async def test_only_its_owner_may_read_it(tmp_path):
    path = tmp_path / "streams.db"
    with closing(KeptStreams(path)) as kept:
        await kept.put(stream("a"))
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
        assert "streams.db-wal" in modes
        assert set(modes.values()) == {0o600}
    path.chmod(0o644)  # as a backup brought it back
    found(path)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_it_is_one_services_at_a_time(tmp_path):
    path = tmp_path / "streams.db"
    await filled(path, stream("a"))
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CantBeKept, match=r"streams\.db: .* another service has it"):
            KeptStreams(path)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE users (name TEXT)")


def rubbish(path: Path) -> None:
    path.write_bytes(b"rubbish" * 1000)


def overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * len(data[4096:])
    path.write_bytes(data)


def changed(statement: str):
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute(statement)

    return change


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (rubbish, "is damaged: file is not a database"),
        (overwritten, "is damaged"),
        (changed("UPDATE streams SET given = '{\"id\":'"), "is damaged: Expecting value"),
        (changed("UPDATE streams SET given = '[]'"), "is damaged: stream 'a' is no object"),
        (changed("UPDATE streams SET created = 'yesterday'"), "is damaged: Invalid isoformat"),
        (changed("DROP TABLE streams"), "is damaged: no such table"),
        (changed("PRAGMA user_version = 2"), "was written by a later livesr"),
    ],
)
async def test_a_damaged_file_is_said_and_left_as_it_is(tmp_path, spoil, why):
    path = tmp_path / "streams.db"
    await filled(path, stream("a"))
    spoil(path)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(ValueError, match=why) as raised:
            KeptStreams(path)
        assert str(path) in str(raised.value)
        assert "secret" not in str(raised.value)
    assert path.read_bytes() == before


def test_a_database_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "users.db"
    foreign(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is a database of something else"):
        KeptStreams(path)
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(CantBeKept, match=r"can't be kept there: .*No such file"):
        KeptStreams(tmp_path / "none" / "streams.db")
    with pytest.raises(CantBeKept, match=r"can't be kept there: .*Is a directory"):
        KeptStreams(tmp_path)


async def test_a_full_disk_is_said(tmp_path):
    with closing(KeptStreams(tmp_path / "streams.db")) as kept:
        await kept.put(stream("a"))
        kept._database.execute("PRAGMA max_page_count = 2")
        with pytest.raises(CantBeKept, match="full"):
            await kept.put(stream("b", note="x" * 100_000))
        await kept.put(stream("c"))
    assert [one.id for one in found(tmp_path / "streams.db")] == ["a", "c"]


async def test_a_stream_that_cannot_be_kept_is_not_made(tmp_path):
    kept = KeptStreams(tmp_path / "streams.db")
    async with gateway(streams=(), kept=kept) as served:
        kept._database.execute("PRAGMA max_page_count = 2")
        body = {"id": "new", "source": "rtsp://camera.example/" + "x" * 1000}
        for number in range(12):
            answer = await served.http.post("/api/streams", json=body | {"id": f"new-{number}"})
            if answer.status_code != 201:
                break
        assert answer.status_code == 507, answer.text
        assert "can't be kept" in answer.json()["detail"]
        names = [stream["id"] for stream in (await served.http.get("/api/streams")).json()]
        assert names == [f"new-{before}" for before in range(number)]
    assert [one.id for one in found(tmp_path / "streams.db")] == names
