"""The log: events with fields, alike in every process, without secrets and without floods."""

import ast
import json
import logging
import re
from collections.abc import Callable, Iterator

import pytest

from server.wire import logs
from tests.conftest import ROOT


class Written:
    """What goes to standard error."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self._text = ""
        self._handlers: list[logging.Handler] = []

    def begin(self, log: Callable[..., None], *words: str | int) -> None:
        """Beside the handlers of pytest, in whose presence none would be added."""
        self.end()
        root = logging.root
        root.handlers, others = [], root.handlers
        log(*words)
        self._handlers = root.handlers
        root.handlers = others + self._handlers

    def end(self) -> None:
        for handler in self._handlers:
            logging.root.removeHandler(handler)
            handler.close()

    def text(self) -> str:
        for handler in self._handlers:
            handler.flush()
        self._text += self._capfd.readouterr().err
        return self._text

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def written(capfd: pytest.CaptureFixture[str]) -> Iterator[Written]:
    level, as_before = logging.root.level, logs._as
    written = Written(capfd)
    yield written
    written.end()
    logging.root.setLevel(level)
    logs._as = as_before


def test_json_is_one_object_a_line_for_libraries_too(written):
    written.begin(logs.log_to_stderr, "json")
    logs.stream_log("cam").warning("source lost", reason="line 1\nline 2", retry_s=1.5)
    logging.getLogger("somebody").warning("%d of %s", 3, "these")

    ours, theirs = written.lines()
    assert ours.pop("timestamp")
    assert ours == {
        "event": "source lost",
        "stream": "cam",
        "reason": "line 1\nline 2",
        "retry_s": 1.5,
        "level": "warning",
        "logger": "server.worker",
    }
    assert (theirs["event"], theirs["logger"], theirs["level"]) == ("3 of these", "somebody", "warning")


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_of_a_url_is_shown_even_in_a_traceback(written, form):
    secret = "rtsp://user:s3cret@camera/1?token=s3cret"
    written.begin(logs.log_to_stderr, form)
    log = logs.get_logger("test")
    try:
        raise ValueError(f"can't open {secret}")
    except ValueError:
        log.exception("stream failed", source=secret)
        logging.getLogger("somebody").exception("no answer from %s", secret)

    said = written.text()
    assert said.count("rtsp://***@camera/1?***") == 4
    assert said.count("Traceback") == 2
    assert "s3cret" not in said


def test_nobody_whose_words_are_logged_begins_a_line_or_moves_the_cursor(written):
    written.begin(logs.log_to_stderr, "text")
    logs.stream_log("cam").warning("source lost", reason="gone\nnow", path="a\x1b[2Jb")
    logging.getLogger("somebody").warning("they say %s", "x\n2026-11-29 all is well \x1b[31m\x9b1A")
    lines = written.text().splitlines()
    assert len(lines) == 2
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", "".join(lines))
    assert r"path=a\x1b[2Jb" in lines[0]


def test_what_repeats_is_left_out_and_counted(written, monkeypatch):
    now_s = 0.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now_s)
    written.begin(logs.log_to_stderr, "json", "info", 2)
    for _ in range(5):
        logs.stream_log("a").warning("source lost", reason="gone")
        logging.getLogger("somebody").warning("no answer from %s", "x")
    logs.stream_log("b").warning("source lost", reason="gone")
    logs.stream_log("a").warning("frames dropped", count=1)
    assert [(line.get("stream"), line["event"]) for line in written.lines()] == [
        *[("a", "source lost"), (None, "no answer from x")] * 2,
        ("b", "source lost"),
        ("a", "frames dropped"),
    ]
    now_s = 61.0
    logs.stream_log("a").warning("source lost", reason="gone")
    logging.getLogger("somebody").warning("no answer from %s", "x")
    assert [line["left_out"] for line in written.lines()[-2:]] == [3, 3]


def test_another_state_is_no_repeat(written):
    written.begin(logs.log_to_stderr, "json", "info", 2)
    for state in ("starting", "running") * 3 + ("quarantined",):
        logs.stream_log("a").info("stream state", state=state, reason="")
    assert [line["state"] for line in written.lines()] == ["starting", "running"] * 2 + ["quarantined"]


def test_the_level_changes_while_it_runs(written):
    log = logs.get_logger("test")
    written.begin(logs.log_to_stderr, "json", "warning")
    log.info("unheard")
    logs.set_level("debug")
    log.debug("heard")
    assert [line["event"] for line in written.lines()] == ["heard"]
    assert logs.level() == "debug"
    assert logging.getLogger("aioice").getEffectiveLevel() == logging.WARNING, "it tells of each packet"


def test_a_child_logs_as_its_parent(written, monkeypatch):
    written.begin(logs.log_to_stderr, "json", "error", 7)
    for name, value in logs.for_children().items():
        monkeypatch.setenv(name, value)
    written.begin(logs.log_to_stderr)
    written.begin(logs.log_as_parent)
    logs.get_logger("test").warning("unheard")
    logs.get_logger("test").error("heard")
    assert [line["event"] for line in written.lines()] == ["heard"]
    assert logs._as == ("json", 7)


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a logger in the server, with where it is."""
    for path in sorted((ROOT / "server").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of = node.func.value
                named = (
                    of.id if isinstance(of, ast.Name) else of.attr if isinstance(of, ast.Attribute) else ""
                )
                levels = "debug", "info", "warning", "error", "exception", "log"
                if named in ("log", "_log", "_LOG") and node.func.attr in levels:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_every_event_has_a_constant_name_and_documented_fields():
    fields = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "logs.md").read_text().partition("## Fields")[2]))
    found = list(calls())
    assert len(found) > 50
    wrong = []
    for where, call in found:
        event = call.args[-1]
        if len(call.args) != 1 + (call.func.attr == "log"):
            wrong.append(f"{where}: what differs belongs in fields")
        if not isinstance(event, ast.Name | ast.Constant) or "%" in getattr(event, "value", ""):
            wrong.append(f"{where}: an event's name is constant")
        for name in {word.arg for word in call.keywords if word.arg} - fields - {"exc_info"}:
            wrong.append(f"{where}: docs/logs.md lists no field {name!r}")
    assert wrong == []


def test_the_servers_own_loggers_are_of_events():
    old = re.compile(r"logging\.(getLogger\(__name__\)|LoggerAdapter|basicConfig)")
    found = [p for p in (ROOT / "server").rglob("*.py") if old.search(p.read_text())]
    assert [str(path.relative_to(ROOT)) for path in found] == ["server/wire/logs.py"]
