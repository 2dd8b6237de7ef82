"""Recordings in S3, by moto: sent, listed, played and deleted there; wrong keys, and no bucket."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from server.gateway import errors
from server.gateway.auth.guard import Guard
from server.gateway.limits.refusals import Refusals
from server.gateway.record.archive import Archive
from server.gateway.record.index import Index
from server.gateway.record.threads import RecordThreads
from server.gateway.record.uploader import Uploader
from server.gateway.routes import recordings
from server.settings import Limits, Recording
from tests.conftest import missing_peer
from tests.peers.service import until as wait
from tests.ports import free_port
from tests.server.gateway.recorded_media import write
from tests.server.gateway.scripted_gateway import until
from tests.server.gateway.scripted_media import FPS
from tests.server.gateway.test_download import shown

START = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
_ROOT = {"aws_access_key_id": "root", "aws_secret_access_key": "root", "region_name": "us-east-1"}
_MAY_ALL = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}], "Version": "2012-10-17"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A server that lets in one user."""

    url: str
    admin: Any  # boto3's client of S3
    key: str
    secret: str


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    if not all(map(find_spec, ("moto", "s3fs"))):
        missing_peer("moto", "pip install -c constraints.txt 'livesr[dev]'")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _opened(url)
    finally:
        server.kill()
        server.wait()


def _opened(url: str) -> Store:
    import boto3  # may be absent, as s3fs: these tests are skipped then

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/moto-api/data.json").is_success
        except httpx.HTTPError:
            return False

    wait(answers, "moto's server answers")
    iam = boto3.client("iam", endpoint_url=url, **_ROOT)
    iam.create_user(UserName="livesr")
    iam.put_user_policy(UserName="livesr", PolicyName="all", PolicyDocument=json.dumps(_MAY_ALL))
    made = iam.create_access_key(UserName="livesr")["AccessKey"]
    httpx.post(f"{url}/moto-api/reset-auth", content=b"0")  # from now on keys count
    key, secret = made["AccessKeyId"], made["SecretAccessKey"]
    user = {"aws_access_key_id": key, "aws_secret_access_key": secret, "region_name": "us-east-1"}
    return Store(url=url, admin=boto3.client("s3", endpoint_url=url, **user), key=key, secret=secret)


@pytest.fixture(autouse=True)
def environment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the driver looks for the store and its keys; and tries that follow each other at once."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", store.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", store.secret)
    for pause in ("_LOOK_S", "_FIRST_RETRY_S", "_LAST_RETRY_S"):
        monkeypatch.setattr(f"server.gateway.record.uploader.{pause}", 0.1)


@asynccontextmanager
async def gateway(folder: Path, remote: str) -> AsyncIterator[tuple[httpx.AsyncClient, Archive]]:
    """What of a gateway has to do with recordings, as after a start."""
    import s3fs  # as boto3

    s3fs.S3FileSystem.clear_instance_cache()
    archive = Archive(Recording(folder=str(folder), remote=remote))
    assert archive.remote is not None
    index, threads = Index(archive), RecordThreads()
    uploader, guard = Uploader(archive, index, archive.remote), Guard(None, Limits(), Refusals(print))
    app = FastAPI()
    errors.install(app)
    app.include_router(recordings.router(archive, index, uploader, threads, guard))
    uploader.start()
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as http:
            yield http, archive
    finally:
        uploader.close()
        threads.close()


async def listed(http: httpx.AsyncClient, count: int) -> list[dict[str, Any]]:
    """The recordings, once so many are there alone."""

    async def sent() -> list[dict[str, Any]]:
        found = (await http.get("/api/recordings")).json()
        return found if [file["remote"] for file in found] == [True] * count else []

    return await until(sent, f"{count} are sent", 30)


async def told(http: httpx.AsyncClient, reason: str) -> None:
    """Waits until the upload says that, or, if empty, nothing."""

    async def says() -> bool:
        said = (await http.get("/api/recordings/upload")).json()["reason"]
        return reason in said if reason else not said

    await until(says, f"the reason is {reason!r}", 30)


async def test_recordings_go_to_s3_and_are_played_and_deleted_there(store: Store, tmp_path: Path):
    store.admin.create_bucket(Bucket="kept")
    archive = Archive(Recording(folder=str(tmp_path)))
    paths = [write(archive, START + timedelta(seconds=4 * n), seconds=4) for n in range(2)]
    contents = [path.read_bytes() for path in paths]
    async with gateway(tmp_path, "s3://kept/recordings") as (http, _):
        first, second = await listed(http, 2)
        await until(lambda: not any(path.exists() for path in paths), "they are not here any more")
    # The next run finds them, and what others have put there is not ours.
    store.admin.put_object(Bucket="kept", Key="recordings/demo/notes.txt", Body=b"not ours")
    async with gateway(tmp_path, "s3://kept/recordings") as (http, _):
        assert await listed(http, 2) == [first, second]
        for asked, got in (("bytes=4-7", slice(4, 8)), ("bytes=-9", slice(-9, None))):
            part = await http.get(second["url"], headers={"Range": asked})
            assert (part.status_code, part.content) == (206, contents[1][got])
        assert (await http.get(first["url"])).content == contents[0]
        times = {"from": START.isoformat(), "to": (START + timedelta(seconds=8)).isoformat()}
        (tmp_path / "cut.mp4").write_bytes((await http.get("/api/recordings/demo.mp4", params=times)).content)
        assert shown(tmp_path / "cut.mp4")[0] == 2 * list(range(4 * FPS))
        assert (await http.delete(first["url"])).status_code == 204
        assert [file["name"] for file in await listed(http, 1)] == [second["name"]]
    there = [one["Key"] for one in store.admin.list_objects_v2(Bucket="kept")["Contents"]]
    assert [key for key in there if first["name"].removesuffix(".mp4") in key] == []
    assert len(there) == 3, "the other file, its index, and what is not ours"


@pytest.mark.parametrize(
    ("key", "secret", "reason"),
    [(None, "wrong", "signature"), ("", "", "credentials")],
)
async def test_with_wrong_keys_recordings_stay_until_a_start_with_the_right_ones(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key, secret, reason
):
    bucket = f"locked-{len(reason)}"
    store.admin.create_bucket(Bucket=bucket)
    with monkeypatch.context() as environment:
        for name, value in (("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret)):
            if value is not None:
                environment.setenv(name, value)
        async with gateway(tmp_path, f"s3://{bucket}/recordings") as (http, archive):
            path = write(archive, START, seconds=1)
            content = path.read_bytes()
            await told(http, reason)
            assert path.read_bytes() == content
    async with gateway(tmp_path, f"s3://{bucket}/recordings") as (http, _):
        (file,) = await listed(http, 1)
        assert (await http.get(file["url"])).content == content


async def test_without_a_bucket_none_is_made_and_recordings_stay_until_there_is_one(
    store: Store, tmp_path: Path
):
    missing = "bucket does not exist"
    async with gateway(tmp_path, "s3://absent/recordings") as (http, archive):
        await told(http, missing)
        store.admin.create_bucket(Bucket="absent")
        await told(http, "")
        store.admin.delete_bucket(Bucket="absent")
        path = write(archive, START, seconds=1)
        await told(http, missing)
        assert path.exists()
        assert "absent" not in {bucket["Name"] for bucket in store.admin.list_buckets()["Buckets"]}
        store.admin.create_bucket(Bucket="absent")
        assert (await listed(http, 1))[0]["name"] == path.name
