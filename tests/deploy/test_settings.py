"""The reference settings file: it changes nothing, and leaves no key out."""

import json
import re
import tomllib

import jsonschema_rs
import pytest
from pydantic import BaseModel

from server.settings import Auth, IceServer, Jwt, Settings, Token
from server.settings.read import SECRET_FILES, load
from server.settings.schema import settings_schema
from tests.conftest import ROOT

REFERENCE = ROOT / "deploy" / "livesr.toml"
SCHEMA = ROOT / "deploy" / "livesr.schema.json"


@pytest.fixture
def everything_on(tmp_path):
    """The reference file with the settings that are off in it ("#key", no space) turned on."""
    path = tmp_path / "livesr.toml"
    path.write_text(re.sub("^#(?![ :])", "", REFERENCE.read_text(), flags=re.MULTILINE))
    return path


def test_as_it_stands_it_is_the_defaults():
    assert load(REFERENCE) == Settings()


def test_compose_and_prometheus_mean_the_same_listener():
    listener = load(ROOT / "deploy/compose/livesr.toml").server.metrics_listener
    assert f'targets: ["{listener}"]' in (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    assert (
        "./compose/livesr.toml:/etc/livesr/livesr.toml:ro" in (ROOT / "deploy" / "compose.yaml").read_text()
    )


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


def test_the_schema_beside_it_is_the_services_own():
    assert json.loads(SCHEMA.read_text()) == settings_schema(), (
        "livesr check-config --schema > deploy/livesr.schema.json"
    )
    assert REFERENCE.read_text().startswith(f"#:schema ./{SCHEMA.name}\n")


def test_an_editor_is_told_what_the_service_would_refuse(everything_on):
    schema = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))
    tables = tomllib.loads(everything_on.read_text())
    assert not [error.message for error in schema.iter_errors(tables)]

    tables["streams"] = [{"id": "a", "source_file": "/run/secrets/source"}]
    assert schema.is_valid(tables)
    for stream in ({"id": "a"}, {"id": "a b", "source": "demo:"}, {"id": "a", "source": "demo:", "x": 1}):
        assert not schema.is_valid({"streams": [stream]}), stream


def test_it_names_every_key_that_names_a_file_of_a_secret():
    text = REFERENCE.read_text()

    assert [secret.file_key for secret in SECRET_FILES if secret.file_key not in text] == []
