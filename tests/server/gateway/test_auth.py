"""Who may do what, of a real gateway: tokens, JWT and scopes."""

import asyncio
import base64
import hmac
import json
import time

import av
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from server.gateway.auth.paths import PathSigner
from server.gateway.auth.tokens import digest
from server.gateway.errors import InvalidPath
from tests.server.gateway.scripted_gateway import Gateway, Viewer, gateway, loopback  # noqa: F401
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement
from tests.server.gateway.test_whep import SDP

SECRET = "a secret of more than thirty-two bytes"


def tokens(**scopes: list[str]) -> dict:
    """Settings under which each name is a token of its own."""
    listed = [{"name": name, "sha256": digest(name), "scopes": scope} for name, scope in scopes.items()]
    return {"auth": {"tokens": listed}}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def quiet() -> ScriptedPlacement:
    return ScriptedPlacement(Script(live=False))


EVERY_SCOPE = tokens(
    admin=["admin"],
    viewer=["view:demo"],
    any_viewer=["view:*"],
    other=["view:other", "publish:other"],
    publisher=["publish:new"],
    any_publisher=["publish:*"],
    scraper=["metrics"],
)
NEW = {"id": "new", "source": "synthetic:"}
# What a request needs, and who of the above has it.
ALLOWED = [
    ("GET", "/api/streams", None, {token["name"] for token in EVERY_SCOPE["auth"]["tokens"]}),
    ("GET", "/api/streams/demo", None, {"admin", "viewer", "any_viewer"}),
    ("POST", "/api/streams", NEW, {"admin", "publisher", "any_publisher"}),
    ("DELETE", "/api/streams/none", None, {"admin", "any_publisher"}),
    ("POST", "/api/streams/none/release", None, {"admin", "any_publisher"}),
    ("PUT", "/api/log-level", {"level": "warning"}, {"admin"}),
    ("GET", "/api/streams/demo/viewers/none", None, {"admin", "viewer", "any_viewer"}),
    ("GET", "/hls/demo/seg-1.m4s", None, {"admin", "viewer", "any_viewer"}),
    ("POST", "/whep/demo", None, {"admin", "viewer", "any_viewer"}),
    ("OPTIONS", "/whep/demo", None, {"admin", "viewer", "any_viewer"}),
    ("PATCH", "/whep/demo/none", None, {"admin", "viewer", "any_viewer"}),
    ("DELETE", "/whep/demo/none", None, {"admin", "viewer", "any_viewer"}),
    ("GET", "/metrics", None, {"admin", "scraper"}),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"), ALLOWED, ids=[f"{method} {path}" for method, path, *_ in ALLOWED]
)
async def test_each_door_opens_to_its_scopes_only(method, path, body, allowed):
    async with gateway(quiet(), **EVERY_SCOPE) as served:

        async def status(headers: dict[str, str]) -> int:
            answer = await served.http.request(method, path, json=body, headers=headers)
            if answer.status_code in (401, 403):
                assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="livesr"')
                assert set(answer.json()) == {"title", "status", "detail"}
            await served.http.delete("/api/streams/new", headers=bearer("admin"))
            return answer.status_code

        assert await status({}) == 401
        assert await status(bearer("unknown")) == 401
        assert await status({"Authorization": "Basic YWRtaW46YWRtaW4="}) == 401
        let_in = set()
        for token in EVERY_SCOPE["auth"]["tokens"]:
            if await status(bearer(token["name"])) not in (401, 403):
                let_in.add(token["name"])
        assert let_in == allowed


async def test_without_auth_everyone_may_do_everything():
    async with gateway(quiet()) as served:
        for headers in ({}, bearer("whatever")):
            assert (await served.http.get("/api/streams/demo", headers=headers)).status_code == 200
            assert (await served.http.get("/metrics", headers=headers)).status_code == 200


async def test_health_is_open_and_names_no_stream_to_strangers():
    async with gateway(quiet(), **EVERY_SCOPE) as served:
        assert (await served.http.get("/healthz")).status_code == 200
        assert (await served.http.get("/readyz")).json() == {"ready": False, "streams": {}}
        mine = await served.http.get("/readyz", headers=bearer("viewer"))
        assert mine.json()["streams"] == {"demo": "starting"}


async def test_a_list_has_only_what_its_reader_may_view():
    async with gateway(quiet(), streams=("demo", "other"), **EVERY_SCOPE) as served:

        async def listed(token: str) -> list[str]:
            answer = await served.http.get("/api/streams", headers=bearer(token))
            return [stream["id"] for stream in answer.json()]

        assert await listed("any_viewer") == ["demo", "other"]
        assert await listed("viewer") == ["demo"]
        assert await listed("scraper") == []


async def test_a_stream_that_one_may_not_view_cannot_be_told_from_none():
    async with gateway(quiet(), **EVERY_SCOPE) as served:
        answers = [
            await served.http.get(f"/api/streams/{stream}", headers=bearer("other"))
            for stream in ("demo", "none")
        ]
        assert [answer.status_code for answer in answers] == [403, 403]
        assert answers[0].text.replace("demo", "none") == answers[1].text


async def test_a_viewer_plays_over_whep_with_a_token():
    async with gateway(**EVERY_SCOPE) as served:
        viewer = Viewer(served)
        sdp = await viewer.offer()
        refused = await served.http.post("/whep/demo", content=sdp, headers=SDP)
        assert refused.status_code == 401
        await viewer.pc.close()
        served.http.headers.update(bearer("viewer"))
        async with Viewer(served) as watching:
            await watching.sees(10)
            session = watching.location
            served.http.headers.pop("Authorization")
            assert (await served.http.delete(session)).status_code == 401
            assert (await served.http.delete(session, headers=bearer("viewer"))).status_code == 200


async def signed_path(served: Gateway, token: str = "viewer") -> str:
    answer = await served.http.post("/api/streams/demo/hls-path", headers=bearer(token))
    assert answer.status_code == 200, answer.text
    return answer.json()["url"]


async def test_a_player_without_headers_plays_by_a_signed_path():
    short = ScriptedPlacement(Script(gop_s=1.0))
    async with gateway(short, hls={"segment_s": 1.0}, **EVERY_SCOPE) as served:
        url = await signed_path(served)
        playlist = await served.http.get(url, timeout=20)
        assert playlist.status_code == 200
        assert playlist.headers["Cache-Control"] == "private, no-cache"

        def play() -> int:
            with av.open(served.base + url, options={"live_start_index": "0"}) as container:
                return sum(1 for _, _ in zip(container.decode(video=0), range(20), strict=False))

        assert await asyncio.to_thread(play) == 20
        folder = url.removesuffix("index.m3u8")
        media = (await served.http.get(folder + "media.m3u8")).text
        segment = next(line for line in media.splitlines() if not line.startswith("#"))
        got = await served.http.get(folder + segment)
        assert got.status_code == 200
        assert got.headers["Cache-Control"] == "private, max-age=3600, immutable"
        assert (await served.http.get(f"/hls/demo/{segment}")).status_code == 401
        with pytest.raises(av.error.HTTPUnauthorizedError):
            await asyncio.to_thread(av.open, f"{served.base}/hls/demo/index.m3u8")


async def test_a_signed_path_is_for_one_stream_and_ends():
    async with gateway(quiet(), streams=("demo", "other"), **EVERY_SCOPE) as served:
        url = await signed_path(served)
        _, _, stream, signature, _ = url.split("/")
        expires, _, mac = signature.partition(".")
        assert int(expires) == pytest.approx(time.time() + 43_200, abs=60)

        async def status(stream: str, signature: str) -> int:
            return (await served.http.get(f"/hls/{stream}/{signature}/seg-0.m4s")).status_code

        assert await status(stream, signature) == 404  # let in: the quiet stream has no segment
        forged = (
            f"{int(expires) + 1}.{mac}",
            f"{expires}.{'A' * len(mac)}",
            f"{expires}.",
            *(mac, ".A", "é", "9" * 400, f"0{signature}", f"٣.{mac}"),
        )
        for wrong in forged:
            assert await status(stream, wrong) == 403, wrong
        assert await status("other", signature) == 403
        refused = await served.http.post("/api/streams/other/hls-path", headers=bearer("viewer"))
        assert refused.status_code == 403


def test_an_expired_path_lets_nobody_in():
    signer = PathSigner()
    signature = signer.sign("demo", 1_000)
    signer.check("demo", signature, 999.9)
    with pytest.raises(InvalidPath, match="expired"):
        signer.check("demo", signature, 1_000)
    with pytest.raises(InvalidPath, match="not one that this service signed"):
        PathSigner().check("demo", signature, 0)


async def test_without_auth_the_path_is_the_plain_one():
    async with gateway(quiet()) as served:
        answer = await served.http.post("/api/streams/demo/hls-path")
        assert answer.json() == {"url": "/hls/demo/index.m3u8", "expires": None}


async def test_openapi_says_how_to_log_in():
    async with gateway(quiet(), **EVERY_SCOPE) as served:
        api = (await served.http.get("/openapi.json")).json()
        assert api["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
        assert api["paths"]["/whep/{stream}"]["post"]["security"] == [{"HTTPBearer": []}]
        assert "security" not in api["paths"]["/healthz"]["get"]
        assert {} in api["paths"]["/readyz"]["get"]["security"], "a token may be left out"


KEYS = {
    "RS256": RSAKey.generate_key(2048, {"kid": "rsa"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "ec"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "okp"}),
}


def claims(**changes) -> dict:
    now_s = int(time.time())
    valid = {
        "iss": "https://login.example",
        "aud": "livesr",
        "sub": "someone",
        "scope": "openid view:demo",
        "exp": now_s + 60,
    }
    return {key: value for key, value in {**valid, **changes}.items() if value is not None}


def signed(key, alg: str, body: dict, **header) -> str:
    registry_alg = {"alg": alg, **({"kid": key.kid} if key.kid else {}), **header}
    if alg == "EdDSA":
        with pytest.warns(UserWarning, match="RFC 9864"):
            return jwt.encode(registry_alg, body, key, algorithms=[alg])
    return jwt.encode(registry_alg, body, key, algorithms=[alg])


@pytest.fixture
def by_jwks(tmp_path) -> dict:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(KeySet(list(KEYS.values())).as_dict()))
    return {"auth": {"jwt": {"jwks_file": str(path), "issuer": "https://login.example"}}}


@pytest.fixture
def by_secret(tmp_path) -> dict:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return {"auth": {"jwt": {"secret_file": str(path), "issuer": "https://login.example"}}}


async def asked(served: Gateway, token: str) -> tuple[int, str]:
    answer = await served.http.get("/api/streams/demo", headers=bearer(token))
    return answer.status_code, answer.text


async def test_a_jwt_lets_in_by_each_algorithm(by_jwks, by_secret):
    async with gateway(quiet(), **by_jwks) as served:
        for alg, key in KEYS.items():
            assert (await asked(served, signed(key, alg, claims())))[0] == 200, alg
            assert (await asked(served, signed(key, alg, claims(scope="view:other"))))[0] == 403, alg
    async with gateway(quiet(), **by_secret) as served:
        assert (await asked(served, signed(OctKey.import_key(SECRET), "HS256", claims())))[0] == 200


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": int(time.time()) - 3600}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "never"}, "exp"),
        ({"nbf": int(time.time()) + 3600}, "not yet valid"),
        ({"iss": "https://evil.example"}, "iss"),
        ({"iss": None}, "iss"),
        ({"aud": "another-service"}, "aud"),
        ({"aud": None}, "aud"),
        ({"scope": ["view:demo"]}, "scope"),
    ],
)
async def test_a_jwt_of_other_claims_is_refused(by_secret, changes, why):
    async with gateway(quiet(), **by_secret) as served:
        status, text = await asked(served, signed(OctKey.import_key(SECRET), "HS256", claims(**changes)))
        assert status == 401
        assert why in text


def by_hand(header: dict, body: dict, secret: bytes) -> str:
    """An HS256 token by whatever secret: libraries refuse to sign by a public key, attackers don't."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, body)]
    signature = hmac.digest(secret, b".".join(parts), "sha256")
    return b".".join((*parts, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()


async def test_a_forged_jwt_is_refused(by_jwks, by_secret):
    public = KEYS["RS256"].as_pem(private=False)
    confused = by_hand({"alg": "HS256", "kid": "rsa"}, claims(), public)
    none = "eyJhbGciOiJub25lIn0." + signed(KEYS["ES256"], "ES256", claims()).split(".")[1] + "."
    foreign = signed(ECKey.generate_key("P-256", {"kid": "ec"}), "ES256", claims())
    unknown = signed(ECKey.generate_key("P-256", {"kid": "new"}), "ES256", claims())
    head, body, signature = signed(KEYS["ES256"], "ES256", claims(scope="view:other")).split(".")
    changed = ".".join((head, signed(KEYS["ES256"], "ES256", claims()).split(".")[1], signature))
    rubbish = ("a.b.c", "..", "é", "x" * 10_000, "eyJhbGciOiJFUzI1NiJ9.e30.", f"{head}.{body}.", "1.2.3.4.5")
    async with gateway(quiet(), **by_jwks) as served:
        for token in (confused, none, foreign, unknown, changed):
            status, text = await asked(served, token)
            assert status == 401, text
        for token in rubbish:
            answer = await served.http.get(
                "/api/streams/demo", headers={"Authorization": f"Bearer {token}".encode()}
            )
            assert answer.status_code == 401, token
    async with gateway(quiet(), **by_secret) as served:
        assert (await asked(served, by_hand({"alg": "HS256"}, claims(), SECRET.encode())))[0] == 200
        other = OctKey.import_key(SECRET + "!")
        for token in (signed(other, "HS256", claims()), signed(KEYS["ES256"], "ES256", claims())):
            assert (await asked(served, token))[0] == 401


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", ["jwks_file", "JSON Web Key Set"]),
        ("no json", ["jwks_file", "JSON Web Key Set"]),
        (
            '{"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"}]}',
            ["public keys only", "secret_file"],
        ),
    ],
)
async def test_a_bad_key_set_ends_the_start_in_words(tmp_path, content, words):
    path = tmp_path / "jwks.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="auth") as caught:
        async with gateway(quiet(), auth={"jwt": {"jwks_file": str(path)}}):
            pass
    for word in (*words, str(path)):
        assert word in str(caught.value)


async def test_a_short_secret_ends_the_start_in_words(tmp_path):
    (tmp_path / "secret").write_text("tiny words")
    with pytest.raises(ValueError, match="at least 32 bytes") as caught:
        async with gateway(quiet(), auth={"jwt": {"secret_file": str(tmp_path / "secret")}}):
            pass
    assert "tiny words" not in str(caught.value)
