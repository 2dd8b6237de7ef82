"""`livesr drain`: every stream leaves a machine of the cluster, so that it can be switched off."""

import argparse
import sys
import time
from urllib.parse import quote

from server.commands.service import Service, ServiceError, add_service_arguments

# Another worker has a minute to take over; it may have to be placed first.
_MOVE_S = 90.0
_ROUNDS, _ENDED_S = 3, 8.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", metavar="NODE", help="as `GET /api/nodes` calls it")
    parser.add_argument("--undo", action="store_true", help="let streams start there again")
    add_service_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 once no stream of this gateway is there; 1 where some could not be moved."""
    service = Service.of(args)
    path = f"api/nodes/{quote(args.node, safe='')}/drain"
    if args.undo:
        service.ask("DELETE", path)
        print(f"{args.node}: streams may start there")
        return 0
    streams = service.ask("POST", path)["streams"]
    for _ in range(_ROUNDS if streams else 0):
        for stream in streams:
            _move(service, stream)
        streams = _wait(service, path)
        if not streams:
            break
    if streams:
        print(f"livesr drain: {args.node}: {', '.join(streams)} could not be moved", file=sys.stderr)
        return 1
    print(f"{args.node}: no stream is left there, and none starts there")
    return 0


def _wait(service: Service, path: str) -> list[str]:
    """Streams that are still there once workers that were replaced have had time to end."""
    until_s = time.monotonic() + _ENDED_S
    while (left := list(service.ask("POST", path)["streams"])) and time.monotonic() < until_s:
        time.sleep(0.5)
    return left


def _move(service: Service, stream: str) -> None:
    try:
        moved = service.ask("POST", f"api/streams/{quote(stream)}/move", timeout_s=_MOVE_S)
    except ServiceError as exc:
        print(f"{stream}: {exc}", file=sys.stderr)
        return
    how = "no frame lost" if moved["lossless"] else "started anew: see docs/cluster.md"
    print(f"{stream}: moved, {how}")
