"""`livesr check-config`: whether the service would take these settings."""

import argparse
import json
import sys
from pathlib import Path

from server.commands.listen import refuse_strangers, resolve
from server.gateway.auth.jwt import JwtVerifier
from server.settings import Server
from server.settings.read import load, overridden
from server.settings.schema import settings_schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", type=Path, help="settings file (TOML); without one, the environment alone"
    )
    parser.add_argument("--schema", action="store_true", help="print the file's JSON schema, for editors")


def run(args: argparse.Namespace) -> int:
    if args.schema:
        print(json.dumps(settings_schema(), indent=2, ensure_ascii=False))
        return 0
    where = args.file or "settings"
    try:
        settings = load(args.file)
        variables = overridden()
    except ValueError as exc:
        return _refused(str(exc))
    try:
        settings.check_slates()
        if settings.auth and settings.auth.jwt:
            JwtVerifier(settings.auth.jwt)
    except ValueError as exc:
        return _refused(f"{where}: {exc}")
    for key, variable in variables.items():
        print(f"{key}: by {variable}")
    streams = ", ".join(stream.id for stream in settings.streams) or "none"
    print(f"{where}: valid; streams from the start: {streams}")
    _warn_of_the_start(settings.server, settings.auth is not None)
    return 0


def _refused(why: str) -> int:
    print(f"livesr check-config: {why}", file=sys.stderr)
    return 1


def _warn_of_the_start(server: Server, knows_who: bool) -> None:
    """Of what the command line and the machine decide, which may be others than here."""
    try:
        address = resolve(server.host, server.port, f"server.host={server.host!r}")
        if not knows_who:
            refuse_strangers(server, address)
    except ValueError as exc:
        print(f"livesr check-config: `livesr serve` will not start so: {exc}", file=sys.stderr)
