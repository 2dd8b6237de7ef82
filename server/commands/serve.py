"""`livesr serve`: the gateway, until SIGTERM or Ctrl-C."""

import argparse
import contextlib
import importlib.util
import logging
import re
import socket
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from engine.machine import Gpu, nvidia_gpus
from server.gateway.app import create_app
from server.gateway.placement.local import LocalPlacement
from server.settings import Settings, check, load

SHUTDOWN_TIMEOUT_S = 3
BACKLOG = 512


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", help="URL or file of one stream to serve, beside the settings'")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file (TOML)")
    parser.add_argument("--host", help="address to listen at")
    parser.add_argument("--port", type=int, help="TCP port to listen at; 0: any free one")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))


def run(args: argparse.Namespace) -> int:
    logging.basicConfig(level=args.log_level.upper(), format="%(asctime)s %(levelname)-7s %(message)s")
    for library in ("aiortc", "aioice", "asyncio", "uvicorn.error"):
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.root.level))
    settings = _settings(args)
    listener = _listen(settings.server.host, settings.server.port)
    config = uvicorn.Config(
        create_app(settings, LocalPlacement(_gpus(), settings.gpu.slots)),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again once all is closed
        _Server(config, _address(listener)).run(sockets=[listener])
    return 0


def _gpus() -> Sequence[Gpu]:
    """Those that this installation can upscale on: without PyTorch every stream runs on the CPU."""
    return nvidia_gpus() if importlib.util.find_spec("torch") else ()


def _settings(args: argparse.Namespace) -> Settings:
    """The file's settings, with what the command line says otherwise."""
    settings = load(args.config) if args.config else Settings()
    tables = settings.model_dump()
    for key in ("host", "port"):
        if getattr(args, key) is not None:
            tables["server"][key] = getattr(args, key)
    if args.source is not None:
        tables["streams"] = (*tables["streams"], {"id": _name(args.source), "source": args.source})
    return check(tables, "command line")


def _name(source: str) -> str:
    """A stream id out of the last part of its source."""
    stem = Path(source.partition("?")[0].rstrip("/")).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:63] or "live"


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises ValueError where the address can't be had."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as exc:
        raise ValueError(
            f"server.host={host!r}, server.port={port}: can't listen there: {exc.strerror}"
        ) from exc
    return listener


def _address(listener: socket.socket) -> str:
    """The page's address, as a browser on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class _Server(uvicorn.Server):
    """Says where it is once it is there."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._page = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"livesr: open {self._page}", flush=True)
