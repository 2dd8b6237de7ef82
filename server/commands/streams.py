"""`livesr streams`: the streams of a running service."""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote

from server.commands.service import Service, add_service_arguments

# After so long `watch` listens again at once; what ended sooner may do so again: after a pause that doubles.
_LASTED_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(
        name: str, act: Callable[[Service, argparse.Namespace], int], summary: str
    ) -> argparse.ArgumentParser:
        one = actions.add_parser(name, help=summary, description=summary)
        one.set_defaults(act=act)
        add_service_arguments(one)
        one.add_argument("--json", action="store_true", help="as the API says it")
        return one

    action("list", _list, "every stream that the token may view")
    action("show", _show, "one stream, and how late its frames are").add_argument("id", metavar="ID")
    add = action("add", _add, "start a stream, which survives a restart of the service")
    add.add_argument("id", metavar="ID", help="its name in URLs and metrics")
    add.add_argument("source", metavar="SOURCE", help="URL, or path of a file of the service's machine")
    add.add_argument(
        "--set",
        action="append",
        default=[],
        dest="options",
        metavar="KEY=VALUE",
        help="any key of [defaults] in the settings, as model=awsrn-live-large-x2; may be repeated",
    )
    action("remove", _remove, "end a stream, its worker and its viewers").add_argument("id", metavar="ID")
    watch = action("watch", _watch, "what happens to streams, as it happens")
    watch.add_argument("id", metavar="ID", nargs="?", help="of this one only")


def run(args: argparse.Namespace) -> int:
    act: Callable[[Service, argparse.Namespace], int] = args.act
    try:
        return act(Service.of(args), args)
    except KeyboardInterrupt:
        return 130


def _list(service: Service, args: argparse.Namespace) -> int:
    streams = service.ask("GET", "api/streams")
    if args.json:
        print(json.dumps(streams))
    else:
        _print_table(("ID", "STATE", "PICTURE", "FPS", "LATENCY", "VIEWERS", "WHY"), map(_row, streams))
    return 0


def _show(service: Service, args: argparse.Namespace) -> int:
    stream = service.ask("GET", _path(args.id))
    if args.json:
        print(json.dumps(stream))
        return 0
    print("\n".join(_lines(stream)))
    return 0


def _add(service: Service, args: argparse.Namespace) -> int:
    wanted = {"id": args.id, "source": args.source, **dict(map(_option, args.options))}
    stream = service.ask("POST", "api/streams", wanted)
    print(json.dumps(stream) if args.json else _plain(f"{stream['id']}: {stream['state']}"))
    return 0


def _remove(service: Service, args: argparse.Namespace) -> int:
    service.ask("DELETE", _path(args.id))
    print(json.dumps({"id": args.id}) if args.json else _plain(f"{args.id}: removed"))
    return 0


def _watch(service: Service, args: argparse.Namespace) -> int:
    known: dict[str, Any] = {}
    pause_s = 0.0
    while True:  # the service ends it every ten minutes, and then tells every state anew
        began_s = time.monotonic()
        for name, data in service.events():
            stream = data["stream"]
            if args.id not in (None, stream) or (name == "state" and known.get(stream) == data.get("state")):
                continue
            if name == "state":
                known[stream] = data["state"]
            if args.json:
                print(json.dumps({"event": name, **data}), flush=True)
            else:
                rest = {key: value for key, value in data.items() if key not in ("stream", "at") and value}
                words = " ".join(f"{key}={value}" for key, value in rest.items())
                print(_plain(f"{data['at']}  {stream:<20} {name:<8} {words}"), flush=True)
        lasted = time.monotonic() - began_s >= _LASTED_S
        pause_s = 0.0 if lasted else min(max(_FIRST_PAUSE_S, 2 * pause_s), _LONGEST_PAUSE_S)
        time.sleep(pause_s)


def _path(stream: str) -> str:
    return f"api/streams/{quote(stream, safe='')}"


def _option(text: str) -> tuple[str, Any]:
    """KEY=VALUE, where the value is JSON, or else text."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ValueError(f"--set {text!r}: must be KEY=VALUE, as model=awsrn-live-large-x2")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _row(stream: dict[str, Any]) -> Sequence[str]:
    latency = stream["latency_s"]
    viewers = stream["viewers"]
    return (
        stream["id"],
        stream["state"],
        _picture(stream),
        f"{stream['fps']:.1f}",
        f"{1e3 * latency['p50']:.0f} ms" if latency else "",
        str(viewers["whep"] + viewers["hls"]),
        stream["reason"],
    )


def _picture(stream: dict[str, Any]) -> str:
    before, after = stream["input"], stream["output"]
    if not (before and after):
        return ""
    return f"{before['width']}x{before['height']} -> {after['width']}x{after['height']}"


def _lines(stream: dict[str, Any]) -> Iterable[str]:
    engine, frames, worker = stream["engine"], stream["frames"], stream["worker"]
    dropped = ", ".join(f"{count} {reason}" for reason, count in frames["dropped"].items())
    rows = [
        ("state", f"{stream['state']} {stream['reason']}"),
        ("source", stream["source"]),
        ("picture", _picture(stream)),
        ("model", f"{stream['model']}, level {stream['level']}"),
        ("upscaled by", f"{engine['model']} ({engine['backend']} {engine['precision']})" if engine else ""),
        ("frames", f"{frames['total']}, {stream['fps']:.1f} a second"),
        ("dropped", dropped),
        ("latency", _quantiles(stream["latency_s"])),
        *((f"  {stage}", _quantiles(of_stage)) for stage, of_stage in stream["stages_s"].items()),
        ("viewers", f"{stream['viewers']['whep']} WebRTC, {stream['viewers']['hls']} HLS"),
        ("worker", f"{worker['restarts']} restarts, {worker['rss_bytes'] >> 20} MiB"),
        ("since", stream["created"]),
    ]
    return [_plain(f"{name:<12} {text}".rstrip()) for name, text in rows if text]


def _quantiles(seconds: dict[str, float] | None) -> str:
    return ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in seconds.items()) if seconds else ""


def _print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = [head, *([_plain(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print(line.rstrip(), file=sys.stdout)


def _plain(text: str) -> str:
    """Without what a terminal would obey: reasons hold words of sources and publishers."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", text)
