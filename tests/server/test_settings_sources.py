"""Settings out of a file, the environment, the command line and files of secrets."""

import hashlib
from pathlib import Path

import pytest

from server.__main__ import main
from server.settings.read import load

FILE = """
[server]
port = 9000
drain_s = 3.0
[[streams]]
id = "a"
source = "demo:"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "livesr.toml"
    path.write_text(FILE)
    return path


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(file, monkeypatch):
    monkeypatch.setenv("LIVESR_SERVER__PORT", "9001")
    monkeypatch.setenv("LIVESR_SERVER__HOST", "::1")
    monkeypatch.setenv("LIVESR_SERVER__HOSTS", '["video.example.com"]')
    monkeypatch.setenv("LIVESR_TOKEN", "of something else")

    settings = load(file, {"server": {"host": "127.0.0.2"}, "streams": [{"id": "b", "source": "demo:"}]})

    server = settings.server
    assert (server.host, server.port, server.drain_s) == ("127.0.0.2", 9001, 3.0)
    assert server.hosts == ("video.example.com",)
    assert [stream.id for stream in settings.streams] == ["a", "b"]
    monkeypatch.setenv("LIVESR_STREAMS", '[{"id": "c", "source": "demo:"}]')
    assert [stream.id for stream in load(file).streams] == ["c"]
    assert [stream.id for stream in load(None).streams] == ["c"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LIVESR_SERVER__PORT", "99999", "LIVESR_SERVER__PORT: server.port='99999': "),
        ("LIVESR_SERVER__PROT", "1", "LIVESR_SERVER__PROT: server.prot='1': "),
        ("LIVESR_SERVRE__PORT", "1", "LIVESR_SERVRE__PORT: must begin with one of LIVESR_AUTH, "),
        ("LIVESR_SERVER__HOSTS", "s3cret", "LIVESR_SERVER__HOSTS: must be JSON"),
        ("LIVESR_DEFAULTS__PUSH", '["rtmp://h/s3cret x"]', "LIVESR_DEFAULTS__PUSH: defaults.push.0: must"),
        (
            "LIVESR_WEBRTC__ICE_SERVERS",
            '[{"urls": ["turn:h"], "username": "u", "credential": ["s3cret"]}]',
            "LIVESR_WEBRTC__ICE_SERVERS: webrtc.ice_servers.0.credential: ",
        ),
        ("LIVESR_DEFAULTS__PUSH_FILE", "/none", "LIVESR_DEFAULTS__PUSH_FILE: defaults.push_file='/none': "),
    ],
)
def test_an_error_names_the_variable_key_and_rule_and_no_secret(file, monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=name) as caught:
        load(file)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_what_is_wrong_in_two_places_is_said_of_each(file, monkeypatch):
    file.write_text("[hls]\nsegments = 1\n")
    monkeypatch.setenv("LIVESR_SERVER__PORT", "x")
    with pytest.raises(ValueError, match=r"livesr\.toml: hls\.segments=1: ") as caught:
        load(file, {"server": {"port": -1}})
    assert "command line: server.port=-1: " in str(caught.value)


def test_secrets_are_read_from_files_of_their_own(file, tmp_path):
    (tmp_path / "token").write_text("livesr_of-a-vault\n")
    (tmp_path / "turn").write_text("shared\n")
    (tmp_path / "source").write_text("rtsp://user:password@camera/1\n")
    (tmp_path / "push").write_text("rtmp://one/app/KEY\nrtmp://two/app/KEY\n")
    file.write_text(
        f"""
        [[auth.tokens]]
        name = "operator"
        scopes = ["admin"]
        token_file = "{tmp_path}/token"
        [[webrtc.ice_servers]]
        urls = ["turn:turn.example.com"]
        secret_file = "{tmp_path}/turn"
        [[streams]]
        id = "a"
        source_file = "{tmp_path}/source"
        push_file = "{tmp_path}/push"
        """
    )

    settings = load(file)

    assert settings.auth.tokens[0].sha256 == hashlib.sha256(b"livesr_of-a-vault").hexdigest()
    assert settings.webrtc.ice_servers[0].secret == "shared"
    assert settings.streams[0].source == "rtsp://user:password@camera/1"
    assert settings.streams[0].push == ("rtmp://one/app/KEY", "rtmp://two/app/KEY")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("source_file = '/none'", "livesr.toml: streams.0.source_file='/none': can't be read: No such file"),
        ("source_file = 3", "streams.0.source_file=3: must be the path"),
        ("source_file = 'EMPTY'", "must hold something"),
        ("source = 'demo:'\nsource_file = '/none'", "streams.0.source_file: must be left out where"),
        ("source_file = 'WRONG'", "livesr.toml: streams.0.source='ftp://***@host/x': scheme 'ftp' must be"),
    ],
)
def test_a_file_without_a_secret_is_named(file, tmp_path, keys, said):
    for name, text in (("EMPTY", " \n"), ("WRONG", "ftp://user:s3cret@host/x")):
        (tmp_path / name).write_text(text)
        keys = keys.replace(f"'{name}'", f"'{tmp_path / name}'")
    file.write_text(f"[[streams]]\nid = 'a'\n{keys}\n")
    with pytest.raises(ValueError, match="streams") as caught:
        load(file)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_check_config_says_whether_the_service_would_take_it(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIVESR_SERVER__PORT", "9001")
    assert main(["check-config", str(file)]) == 0
    assert "server.port: by LIVESR_SERVER__PORT\n" in capsys.readouterr().out

    file.write_text(f"[auth.jwt]\nsecret_file = '{tmp_path}/none'\n")
    assert main(["check-config", str(file)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"livesr check-config: {file}: auth.jwt.secret_file='{tmp_path}/none'")
    assert said.err.count("\n") == 1


def test_check_config_warns_of_a_start_that_would_be_refused(file, capsys):
    file.write_text("[server]\nhost = '0.0.0.0'\n")
    assert main(["check-config", str(file)]) == 0
    assert "server.host='0.0.0.0': would let everyone in: " in capsys.readouterr().err
    file.write_text("[server]\nhost = '0.0.0.0'\nopen_to_the_world = true\n")
    assert main(["check-config", str(file)]) == 0
    assert capsys.readouterr().err == ""
