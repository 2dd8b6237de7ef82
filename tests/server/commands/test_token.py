"""`livesr token`: what it prints lets its holder in."""

import tomllib

import pytest

from server.__main__ import main
from server.gateway.auth.jwt import JwtVerifier
from server.gateway.auth.tokens import Tokens
from server.settings import Settings


def test_a_token_is_known_by_the_lines_that_come_with_it(capsys):
    assert main(["token", "view:demo", "metrics", "--name", "wall display"]) == 0
    token, _, lines = capsys.readouterr().out.partition("\n")
    assert token not in lines
    settings = Settings.model_validate(tomllib.loads(lines))
    caller = Tokens(settings.auth.tokens).find(token)
    assert caller.name == "wall display"
    assert caller.may("view", "demo")
    assert caller.may("metrics")
    assert not caller.may("view", "other")
    assert Tokens(settings.auth.tokens).find(token[:-1]) is None


def test_two_tokens_differ(capsys):
    main(["token", "admin"])
    main(["token", "admin"])
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("livesr_")]
    assert len(set(printed)) == 2
    assert all(len(token) > 40 for token in printed)


def test_a_jwt_is_made_by_the_settings_secret(tmp_path, capsys):
    (tmp_path / "secret").write_text("0123456789abcdef" * 2)
    config = tmp_path / "livesr.toml"
    config.write_text(f"[auth.jwt]\nsecret_file = '{tmp_path / 'secret'}'\n")
    assert main(["token", "--jwt", "--config", str(config), "view:*", "--days", "0.5"]) == 0
    settings = Settings.model_validate(tomllib.loads(config.read_text()))
    assert JwtVerifier(settings.auth.jwt).verify(capsys.readouterr().out.strip()).may("view", "demo")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["token", "views:demo"], "scopes.0='views:demo': must be admin, metrics, view:ID"),
        (["token", "view:../x"], "view:../x"),
        (["token", "admin", "--name", 'a"b'], "name="),
        (["token", "admin", "--jwt"], "[auth.jwt] secret_file"),
        (["token", "admin", "--jwt", "--days", "0"], "--days 0"),
    ],
)
def test_what_it_cannot_do_is_said(capsys, words, message):
    assert main(words) == 2
    assert message in capsys.readouterr().err
