"""The documentation: pages are up to date, links lead somewhere, what it says to type is understood."""

import argparse
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from loadtest.__main__ import COMMANDS as LOADTEST
from server.__main__ import whole_parser
from server.settings.read import check
from tests.conftest import ROOT
from tests.docs import api_page, settings_page

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "engine").rglob("*.md")])
# Where somebody is told what to type, or which page to read.
TEXTS = [*PAGES, *(ROOT / "deploy").rglob("*.toml"), *(ROOT / "deploy").rglob("*.y*ml")]


@pytest.mark.parametrize(("name", "page"), [("settings", settings_page.page), ("api", api_page.page)])
def test_generated_pages_are_up_to_date(name, page):
    assert (ROOT / "docs" / f"{name}.md").read_text() == page(), "make generated"


def test_every_setting_is_on_its_page():
    _, tables = settings_page.parse((ROOT / "deploy" / "livesr.toml").read_text())
    assert {"server", "auth.tokens", "webrtc.ice_servers", "defaults", "log", "streams"} <= {
        table.name for table in tables
    }
    assert all(table.settings for table in tables if table.name != "auth")
    assert sum(len(table.settings) for table in tables) > 90


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub and mkdocs make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
        found |= {words.replace(" ", "-"), re.sub(r"[-\s]+", "-", words)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


def test_pages_that_are_named_exist():
    named = {
        (str(text.relative_to(ROOT)), name)
        for text in [*TEXTS, *(ROOT / "server").rglob("*.py"), *(ROOT / "engine").rglob("*.py")]
        for name in re.findall(
            r"(?<![\w/-])((?:docs|deploy)/[\w./-]+\.(?:md|toml|ya?ml|conf|json))\b", text.read_text()
        )
    }
    assert len(named) > 20
    assert sorted(pair for pair in named if not (ROOT / pair[1]).exists()) == []


def test_the_site_leaves_no_page_out():
    listed = set(re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")}


def loadtest_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="livesr-loadtest")
    subparsers = parser.add_subparsers(required=True)
    for name, (module, _) in LOADTEST.items():
        subparser = subparsers.add_parser(name)
        module.add_arguments(subparser)
        subparser.add_argument("--token")
    return parser


@cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    return {"livesr": whole_parser(), "livesr-loadtest": loadtest_parser()}


def commands() -> Iterator[tuple[str, str, bool]]:
    """Every command that a text shows: where, and whether whole, in a block, or a part of it in backticks."""
    for text in TEXTS:
        words = text.read_text()
        blocks = re.findall(r"^```\w*\n(.*?)^```", words, re.MULTILINE | re.DOTALL)
        lines = [(line, True) for block in blocks for line in block.splitlines()]
        lines += [(line, False) for line in re.findall(r"`([^`\n]+)`", words)]
        for line, whole in lines:
            # What is behind two spaces or a "#" says what it does.
            shown = re.split(r"\s{2,}|\s#\s|\s>\s", line.strip().removeprefix(".venv/bin/"))[0]
            shown = re.sub(r"^.*\| (?=livesr )", "", re.sub(r'^eval "\$\((.*)\)"$', r"\1", shown))
            if re.match(r"livesr(-loadtest)? [a-z-]", shown):
                yield str(text.relative_to(ROOT)), shown, whole


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                found |= options_of(below)
    return found


def problem(command: str, whole: bool) -> str:
    """What of the command would not be understood."""
    program, *words = command.replace(",", " ").split()
    parser = parsers()[program]
    (subparsers,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    chosen = subparsers.choices.get(words[0])
    if chosen is None and not words[0].startswith("-"):
        return f"no command {words[0]}"
    known = options_of(chosen or parser)
    if unknown := [word for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", command) if word not in known]:
        return f"no option {unknown}"
    # Where alternatives or several commands are shown at once, nobody types it so.
    if whole and not re.search(r"[\[…|,]", command):
        try:
            parser.parse_args(shlex.split(command)[1:])
        except SystemExit as exc:
            return f"exit {exc.code}" if exc.code else ""
    return ""


def test_commands_that_are_shown_are_understood(capsys):
    found = list(commands())
    assert len(found) > 60
    wrong = [(where, shown, why) for where, shown, whole in found if (why := problem(shown, whole))]
    assert wrong == [], capsys.readouterr().err
    assert problem("livesr serve --prot 1", False) == "no option ['--prot']"
    assert problem("livesr strems list", False) == "no command strems"
    assert problem("livesr streams add only-an-id", True) == "exit 2"


def test_settings_that_are_shown_are_taken():
    shown = 0
    for page in PAGES:
        for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            tables = tomllib.loads(block)
            if "streams" not in tables and any(key in tables for key in ("id", "source")):
                tables = {"streams": [tables]}
            check(tables, str(page))
            shown += 1
    assert shown >= 3
