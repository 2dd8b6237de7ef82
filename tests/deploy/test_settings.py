"""The reference settings file: it changes nothing, and leaves no key out."""

import re
import tomllib

import pytest
from pydantic import BaseModel

from server.settings import Auth, IceServer, Jwt, Settings, Token, load
from tests.conftest import ROOT

REFERENCE = ROOT / "deploy" / "livesr.toml"


@pytest.fixture
def everything_on(tmp_path):
    """The reference file with the settings that are off in it ("#key", no space) turned on."""
    path = tmp_path / "livesr.toml"
    path.write_text(re.sub("^#(?! )", "", REFERENCE.read_text(), flags=re.MULTILINE))
    return path


def test_as_it_stands_it_is_the_defaults():
    assert load(REFERENCE) == Settings()


def test_compose_and_prometheus_mean_the_same_listener():
    listener = load(ROOT / "deploy" / "compose.toml").server.metrics_listener
    assert f'targets: ["{listener}"]' in (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    assert "./compose.toml:/etc/livesr/livesr.toml:ro" in (ROOT / "deploy" / "compose.yaml").read_text()


def keys_of(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields)


def test_it_lists_every_key(everything_on):
    tables = tomllib.loads(everything_on.read_text())

    assert set(tables) == keys_of(Settings)
    for name, field in Settings.model_fields.items():
        if name not in ("streams", "auth"):
            assert set(tables[name]) == keys_of(field.annotation), name
    assert set(tables["auth"]) == keys_of(Auth)
    assert set(tables["auth"]["tokens"][0]) == keys_of(Token)
    assert set(tables["auth"]["jwt"]) | {"jwks_file"} == keys_of(Jwt)  # it takes the place of secret_file
    assert set().union(*tables["webrtc"]["ice_servers"]) == keys_of(IceServer)


def test_its_examples_are_valid(everything_on):
    settings = load(everything_on)

    assert [s.id for s in settings.streams] == ["entrance"]
    assert settings.streams[0].lanes == 2
    assert settings.webrtc.ice_servers[0].urls == ("turn:turn.example.com:3478?transport=udp",)
