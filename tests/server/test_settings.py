"""The settings file: what it means, and what is said of a wrong one."""

from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from server.settings import Settings, describe_error
from server.settings.read import load
from server.wire.urls import mask_credentials, mask_url
from tests.conftest import ROOT

GOOD = """
[server]
port = 9000
[defaults]
lanes = 3
keyframe_interval_s = 1.0
[limits]
max_width = 1280
[[streams]]
id = "a"
source = "rtsp://user:secret@camera/1"
lanes = 4
[[streams]]
id = "b"
source = "/tmp/clip.mp4"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "livesr.toml"
    path.write_text(text)
    return path


def test_a_stream_takes_the_defaults_and_its_own_word_goes_first(tmp_path):
    settings = load(write(tmp_path, GOOD))
    first, second = (stream.job(settings.limits) for stream in settings.streams)
    assert (first.lanes, second.lanes) == (4, 3)
    assert first.keyframe_interval_s == 1.0
    assert first.max_width == 1280
    assert first.source == "rtsp://user:secret@camera/1"
    assert settings.server.port == 9000


@pytest.mark.parametrize("path", sorted((ROOT / "deploy").glob("*.toml")), ids=lambda path: path.name)
def test_the_files_that_ship_are_valid(path):
    load(path)


def test_the_reference_file_names_every_key_with_its_default():
    assert load(ROOT / "deploy" / "livesr.toml") == Settings()
    text = (ROOT / "deploy" / "livesr.toml").read_text()
    for table in (
        Settings().server,
        Settings().webrtc,
        Settings().defaults,
        Settings().limits,
        Settings().hls,
    ):
        for key in type(table).model_fields:
            assert f"\n{key} = " in text or f"\n#{key} = " in text or f"\n#[[webrtc.{key}]]" in text, key


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server\n", ["not valid TOML"]),
        ("[server]\nprot = 1", ["livesr.toml: server.prot=1: there is no such key"]),
        ("[server]\nport = 70000", ["server.port=70000", "65535"]),
        ("[hls]\nsegment_s = 'two'", ["hls.segment_s='two'", "number"]),
        ("[defaults]\nencoder = 'x265'", ["defaults.encoder='x265'", "libx264"]),
        ("[defaults]\npreset = 'nonsense'", ["defaults.preset='nonsense'", "'veryfast'"]),
        ("[defaults]\nmodel = 'live-x9'", ["defaults.model='live-x9'", "awsrn-live-x2", "path"]),
        ("[defaults]\nbackend = 'magic'", ["defaults.backend='magic'", "openvino"]),
        (
            "[defaults]\nrenditions = ['upscaled', '541p']",
            ["defaults.renditions: '541p'", "even"],
        ),
        (
            "[defaults]\nrenditions = ['upscaled', '0540p']",
            ["'0540p'", "'source' or a height"],
        ),
        ("[defaults]\nrenditions = ['upscaled', '54000p']", ["'54000p'", "90 to 4318"]),
        ("[defaults]\nrenditions = ['source']", ["defaults.renditions: 'upscaled' must be one"]),
        ("[defaults]\nrenditions = ['upscaled', '90p', '90p']", ["'90p' must be given once"]),
        ("[recording]\nkeep_s = inf", ["recording.keep_s=inf", "finite"]),
        ("[limits]\nhls_requests_per_s = inf", ["limits.hls_requests_per_s=inf", "finite"]),
        ("[limits]\nmax_streams = 0", ["limits.max_streams=0", "greater"]),
        ("[limits]\nworker_memory_bytes = 1000", ["limits.worker_memory_bytes=1000", "at least"]),
        ("[[streams]]\nid = 'a'", ["streams.0.source", "required"]),
        ("[[streams]]\nid = 'a b'\nsource = 'demo:'", ["streams.0.id='a b'"]),
        ("[[streams]]\nid = 'a'\nsource = 'ftp://host/x'", ["streams.0.source", "'ftp'", "rtsp"]),
        ("[[streams]]\nid = 'a'\nsource = 'rtsp:///x'", ["streams.0.source", "host"]),
        (
            "[[streams]]\nid = 'a'\nsource = 'rtsp://u:p/w@host/1'",
            ["livesr.toml: streams.0.source='rtsp://***@host/1': its port must be a number; /, ? and # of"],
        ),
        (
            "[[streams]]\nid = 'a'\nsource = 'rtsp://u:p w@host/1'",
            ["livesr.toml: streams.0.source='rtsp://***@host/1': a space of a user or password is %20"],
        ),
        ("[[streams]]\nid = 'a'\nsource = 'udp://0.0.0.0'", ["streams.0.source", "must name a port"]),
        (
            "[[streams]]\nid = 'a'\nsource = 'demo:'\npush = ['rtmp://host:x/app/key']",
            ["livesr.toml: streams.0.push.0: rtmp://***/***: its port must be a number; /, ? and # of"],
        ),
        (
            "[[streams]]\nid = 'a'\nsource = 'demo:'\npush = ['whips://host/whip/%2e%2e/api']",
            ["streams.0.push.0: whips://host/***: must not hold '..'"],
        ),
        ("[[streams]]\nid = 'a'\nsource = 'srt://host'", ["streams.0.source", "must name a port"]),
        (
            "[[streams]]\nid = 'a'\nsource = 'srt://h:1?mode=rendezvous'",
            ["mode='rendezvous'", "caller, listener"],
        ),
        (
            "[[streams]]\nid = 'a'\nsource = 'srt://h:1?passphrase=short'",
            ["passphrase: must have 10 to 79 bytes"],
        ),
        (
            "[[streams]]\nid = 'a'\nsource = 'srt://h:1?transtype=file'",
            ["'transtype'", "one of mode, streamid"],
        ),
        ("[[streams]]\nid='a'\nsource='v4l2:/etc/passwd'", ["'/etc/passwd' must be a device such as"]),
        ("[[streams]]\nid='a'\nsource='v4l2:/dev/video0?fps=x'", ["v4l2 fps='x' must be like 30"]),
        (
            "[[streams]]\nid='a'\nsource='synthetic:?size=1x1'",
            ["streams.0.source='synthetic:?size=1x1': synthetic width=1 must be even, from 80"],
        ),
        ("[sources]\nschemes=['v4l2']", ["'v4l2' is for streams of the settings file alone"]),
        (
            "[[streams]]\nid='a'\nsource='demo:'\n[[streams]]\nid='a'\nsource='demo:'",
            ["livesr.toml: streams: id 'a' must be given once"],
        ),
        (
            "[limits]\nmax_streams=1\n" + "[[streams]]\nid='%s'\nsource='demo:'\n" * 2 % ("a", "b"),
            ["max_streams=1"],
        ),
        ("streams = 3", ["livesr.toml: streams=3: must be a list"]),
        ("server = 3", ["server=3: must be a table"]),
        ("[auth]", ["auth", "[[auth.tokens]]"]),
        ("[auth.jwt]\nissuer = 'x'", ["auth.jwt", "either secret_file or jwks_file"]),
        (
            "[[auth.tokens]]\nname='a'\nsha256='a-token'\nscopes=['admin']",
            ["auth.tokens.0.sha256: must be the SHA-256", "64 hexadecimal digits"],
        ),
        (
            f"[[auth.tokens]]\nname='a'\nsha256='{'0' * 64}'\nscopes=['all']",
            ["auth.tokens.0.scopes.0='all'", "view:ID"],
        ),
        ("[server]\ncors_origins = ['example.com']", ["server.cors_origins", "https://example.com"]),
        ("[server]\nhosts = ['video.example.com:8080']", ["server.hosts", "without a port"]),
        ("[server]\ntrusted_proxies = ['proxy']", ["server.trusted_proxies", "'proxy'"]),
        ("[server]\nmetrics_listener = '9101'", ["server.metrics_listener='9101'", "HOST:PORT"]),
        ("[limits]\nmax_body_bytes = 1", ["limits.max_body_bytes=1", "4096"]),
        ("[webrtc]\nhost_addresses = ['localhost']", ["webrtc.host_addresses", "localhost"]),
        ("[[webrtc.ice_servers]]\nurls = ['http://x']", ["http://x", "stun:"]),
    ],
)
def test_an_error_names_file_key_value_and_rule(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=r"livesr\.toml") as caught:
        load(path)
    for word in words:
        assert word in str(caught.value)


def test_a_wrong_default_is_told_once_and_not_of_each_stream(tmp_path):
    streams = "".join(f"[[streams]]\nid = '{name}'\nsource = 'demo:'\n" for name in "abc")
    path = write(tmp_path, f"[defaults]\nlanes = 99\n{streams}lanes = 98\n")
    with pytest.raises(ValueError, match="lanes") as caught:
        load(path)
    rule = "Input should be less than or equal to 16"
    assert str(caught.value) == f"{path}: defaults.lanes=99: {rule}; streams.2.lanes=98: {rule}"


@pytest.mark.parametrize(
    "text", ["[defaults]\nslate = '{}'", "[[streams]]\nid = 'a'\nsource = 'demo:'\nslate = '{}'"]
)
def test_a_slate_is_an_image(tmp_path, text):
    image = tmp_path / "away.png"
    settings = load(write(tmp_path, text.format(image)))
    with pytest.raises(ValueError, match=r"slate='.*away\.png': must be the path of an image"):
        settings.check_slates()
    image.write_bytes(b"\x89PNG\r\n\x1a\nnone")
    with pytest.raises(ValueError, match=r"slate='.*away\.png': must be"):
        settings.check_slates()
    Image.new("RGB", (64, 36)).save(image)
    settings.check_slates()


def test_a_token_in_the_place_of_its_hash_is_not_shown(tmp_path):
    path = write(tmp_path, "[[auth.tokens]]\nname='a'\nsha256='livesr_secret'\nscopes=['admin']")
    with pytest.raises(ValueError, match="sha256") as caught:
        load(path)
    assert "livesr_secret" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such settings file"):
        load(tmp_path / "none.toml")
    with pytest.raises(ValueError, match=f"^{tmp_path}: can't be read: Is a directory$"):
        load(tmp_path)


def test_renditions_are_in_the_order_in_which_a_viewers_network_tries_them():
    settings = Settings.model_validate({"defaults": {"renditions": ["source", "360p", "upscaled", "720p"]}})
    assert settings.defaults.renditions == ("upscaled", "720p", "360p", "source")


def test_an_api_stream_takes_the_operators_defaults():
    settings = Settings.model_validate({"defaults": {"lanes": 5}})
    assert settings.stream(id="x", source="demo:").lanes == 5
    with pytest.raises(ValidationError):
        settings.stream(id="x", source="gopher://x")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("rtsp://user:secret@camera:554/1", "rtsp://***@camera:554/1"),
        ("rtsp://user:p@ss@camera/1", "rtsp://***@camera/1"),
        ("https://cdn/live.m3u8?token=abc&x=1", "https://cdn/live.m3u8?***"),
        ("rtmp://host/app/key: Connection refused", "rtmp://host/app/key: Connection refused"),
        ("rtmp://0.0.0.0:1935/live/key?listen=1", "rtmp://0.0.0.0:1935/live/***?***"),
        ("rtsp://0.0.0.0/key?a=b&listen=1: no publisher", "rtsp://0.0.0.0/***?*** no publisher"),
        ("rtsp://0.0.0.0?listen=1", "rtsp://0.0.0.0?***"),
        ("can't open 'rtsp://u:p@h/1': timed out", "can't open 'rtsp://***@h/1': timed out"),
        ("rtsp://u:it's@h/1", "rtsp://***@h/1"),
        ("rtsp://u:a\"b'c@h/1: refused", "rtsp://***@h/1: refused"),
        ("srt://h:9000?passphrase=it's", "srt://h:9000?***"),
        ("srt://h:9000?passphrase=it's'", "srt://h:9000?***"),
        (repr("rtsp://u:it's@h/1?a=it's"), '"rtsp://***@h/1?***"'),
        (repr({"url": "srt://h:1?passphrase=a'b\"c"}), "{'url': 'srt://h:1?***'}"),
        ("no 'rtsp://u:it's@h/1?a=b': gone", "no 'rtsp://***@h/1?***': gone"),
        ("rtsp://u:p/w@h/1", "rtsp://***@h/1"),
        ("rtsp://u:p?w@h/1", "rtsp://***?***"),
        ("rtsp://u:p/a?w@h/1", "rtsp://***?***"),
        ("rtsp://h:554: refused, http://[::1]:80/1", "rtsp://h:554: refused, http://[::1]:80/1"),
        ("synthetic:?size=320x180", "synthetic:?size=320x180"),
        ("/srv/what?.mp4", "/srv/what?.mp4"),
    ],
)
def test_credentials_are_masked(text, masked):
    assert mask_credentials(text) == masked


@pytest.mark.parametrize(
    ("source", "masked"),
    [
        ("rtsp://u:a b@h/1", "rtsp://***@h/1"),
        ("srt://h:9000?passphrase=a b'", "srt://h:9000?***"),
        ("rtmp://0.0.0.0/live/a 'key'?listen=1", "rtmp://0.0.0.0/live/***?***"),
        ("/srv/it's a film.mp4", "/srv/it's a film.mp4"),
    ],
)
def test_a_source_is_masked_whatever_its_password_holds(source, masked):
    assert mask_url(source) == masked
    refused = {"loc": ("source",), "input": source, "msg": "no"}
    assert describe_error(refused) == f"source={masked!r}: no"


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("udp://10.0.0.7:5000", True),
        ("udp://10.0.0.7:5000/", True),
        ("udp://10.0.0.7:5001", False),
        ("srt://live.example:9000?streamid=any&passphrase=0123456789", True),
        ("whips://token@live.example/whip/cam", True),
        ("whips://token@live.example/api", False),
        ("whips://live.example@evil.example/whip/cam", False),
    ],
)
def test_a_stream_of_the_api_is_pushed_to_what_begins_as_the_settings_say(address, may):
    allowed = ["udp://10.0.0.7:5000/", "srt://live.example:9000/", "whips://live.example/whip/"]
    settings = Settings.model_validate({"push": {"allowed": allowed}})
    stream = settings.stream(id="a", source="demo:", push=(address,))
    if may:
        settings.check_stranger(stream)
        return
    with pytest.raises(ValueError, match=r"must begin as one of push\.allowed does"):
        settings.check_stranger(stream)
