"""The `livesr-loadtest` command."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from loadtest import faults, latency, network, overload, publishers, soak, viewers
from loadtest.http import use_token

COMMANDS = {
    "viewers": (viewers, "N viewers at once: join time, frames per second, loss, server CPU per viewer"),
    "publishers": (publishers, "N publishers at once: taken, refused and why, first frame, frames lost"),
    "latency": (latency, "how late frames are, and how late the service says, by each protocol"),
    "network": (network, "a viewer behind a bad network: frames, freezes, sizes of the picture"),
    "overload": (overload, "a busy machine: frames in time, steps between networks, the way back"),
    "faults": (
        faults,
        "kills, stops and crashes workers: how soon does the picture move again?",
    ),
    "soak": (soak, "viewers joining and leaving for minutes: do the server's memory and files stay flat?"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """User errors are one line on stderr and status 2."""
    parser = argparse.ArgumentParser(prog="livesr-loadtest", description="Drives livesr from outside.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        module.add_arguments(subparser)
        subparser.add_argument(
            "--token",
            default=None,
            help="of a service that asks for one; better in LIVESR_TOKEN, as other users see a command line",
        )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.ERROR)
    try:
        use_token(os.environ.get("LIVESR_TOKEN", "") if args.token is None else args.token)
        return int(COMMANDS[args.command][0].run(args))
    except ValueError as exc:
        print(f"livesr-loadtest {args.command}: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
