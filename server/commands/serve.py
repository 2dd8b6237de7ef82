"""`livesr serve`: the gateway, until SIGTERM or Ctrl-C."""

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import json
import logging
import os
import re
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import uvicorn
from starlette.types import ASGIApp

from engine.machine import Gpu, nvidia_gpus
from engine.measure.costs import load_costs
from engine.measure.gpu_costs import GpuCosts
from server.commands.listen import listen, page_url, refuse_strangers, resolve
from server.gateway.app import Gateway, create_app
from server.gateway.auth.first_token import first_token
from server.gateway.figures.metrics import Metrics
from server.gateway.limits.connections import Connections, guarded
from server.gateway.limits.refusals import Refusals
from server.gateway.placement.capacity import Capacity, bicubic_megapixels
from server.gateway.placement.local import LocalPlacement
from server.gateway.placement.slots import usual_slots
from server.gateway.routes.health import metrics_app
from server.gateway.streams.fleet import Fleet
from server.gateway.streams.kept import CantBeKept, KeptStreams
from server.node.actor import HostActor
from server.settings import Server as ServerSettings
from server.settings import Settings, split_address
from server.settings.read import load
from server.wire.logs import Format, LogLevel, get_logger, log_to_stderr
from server.wire.urls import mask_url

log = get_logger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        nargs="?",
        help="URL or file of one stream to serve, beside the settings'; -: MPEG-TS on standard input",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file (TOML)")
    parser.add_argument("--host", help="address to listen at")
    parser.add_argument("--port", type=int, help="TCP port to listen at; 0: any free one")
    parser.add_argument(
        "--first-token",
        type=Path,
        metavar="FILE",
        help="without [auth]: make an admin token at the first start, print it and keep its hash in FILE",
    )
    parser.add_argument(
        "--log-level", choices=get_args(LogLevel), help="from which level on events are logged"
    )
    parser.add_argument("--log-format", choices=get_args(Format), help="for people or for programs")
    parser.add_argument(
        "--cluster",
        metavar="auto|HOST:PORT",
        help="run the workers on the machines of this Ray cluster (extra: cluster)",
    )


def run(args: argparse.Namespace) -> int:
    # A signal that comes while it starts counts once it has: what was read then may be old.
    hung_up = threading.Event()
    signal.signal(signal.SIGHUP, lambda *_: hung_up.set())
    settings = _settings(args)
    log_to_stderr(settings.log.format, settings.log.level, settings.log.repeats_per_min)
    _open_as_many_as_may_be()
    with contextlib.ExitStack() as stack:
        return _serve(args, settings, hung_up, stack)


def _serve(
    args: argparse.Namespace, settings: Settings, hung_up: threading.Event, stack: contextlib.ExitStack
) -> int:
    """What it opens is closed by `stack`, where it can't start as well. `hung_up`: the settings are to be
    read again."""
    server = settings.server
    address = resolve(server.host, server.port, f"server.host={server.host!r}, server.port={server.port}")
    makes_token = args.first_token is not None and settings.auth is None and not server.open_to_the_world
    if settings.auth is None and not makes_token:
        refuse_strangers(server, address)
    listener = stack.enter_context(listen(address))
    metrics_listener = None
    if server.metrics_listener:
        named = f"server.metrics_listener={server.metrics_listener!r}"
        metrics_address = resolve(*split_address(server.metrics_listener), named)
        metrics_listener = stack.enter_context(listen(metrics_address))
    page = url = page_url(listener)
    untold = stack.enter_context(contextlib.ExitStack())
    if makes_token:
        auth, token = first_token(args.first_token)
        settings = settings.model_copy(update={"auth": auth})
        if token:
            # In the fragment, which browsers send to no server.
            page += f"#token={token}"
            untold.callback(_forget, args.first_token)
    kept = _kept(server.state, args.config)
    if kept is not None:
        stack.callback(kept.close)
    metrics = Metrics()
    if args.cluster:
        app = _elsewhere(args.cluster, listener, settings, metrics, kept)
    else:
        app = _here(settings, metrics, kept)
    refusals = Refusals(metrics.count_refusal)
    protocol = guarded(
        Connections(settings.limits, refusals, proxies=server.trusted_proxies, gateways=app.gateways)
    )

    def read_again() -> Settings:
        wanted = _settings(args)
        if makes_token and wanted.auth is None:
            return wanted.model_copy(update={"auth": settings.auth})
        if wanted.auth is None:
            refuse_strangers(wanted.server, address)
        return wanted

    ready = partial(_tell, _ready(page, settings.log.format), untold)
    served = _Server(_config(app, protocol, server), ready, app, server.drain_s, read_again, hung_up)
    if metrics_listener is not None:
        served.also(_config(metrics_app(metrics), protocol, server), metrics_listener)
    with _written(url, server.url_file):
        served.run(sockets=[listener])
    return 0


def _open_as_many_as_may_be() -> None:
    """Each stream, viewer and player takes a file descriptor. That there are 1,024 by default is for the sake
    of `select`, which nothing here calls."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Refused where the limit of the process is above the system's own.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _ready(page: str, form: Format) -> str:
    """Not in the log, as a first token is told by it; but where the log is JSON this is, too."""
    return json.dumps({"event": "service ready", "page": page}) if form == "json" else f"livesr: open {page}"


def _tell(ready: str, untold: contextlib.ExitStack) -> None:
    """Says it on standard output. Where that can't be written, as on a full disk, `untold` takes back what
    nobody knows then, and the service goes on."""
    try:
        os.write(1, f"{ready}\n".encode())  # by `print` it would be kept, and fail again at the end
    except OSError as exc:
        log.warning("standard output can't be written", reason=exc.strerror)
        untold.close()
    else:
        untold.pop_all()


def _forget(first_token: Path) -> None:
    """Nobody has been told it, and a file with its hash would keep everybody out."""
    first_token.unlink(missing_ok=True)
    log.warning("first token not told", file=str(first_token), consequence="the next start makes another")


@contextlib.contextmanager
def _written(url: str, file: str) -> Iterator[None]:
    """The URL is in that file, if there is to be one."""
    path = Path(file)
    if file:
        try:
            path.write_text(url, encoding="utf-8")
        except OSError as exc:
            log.warning("URL can't be written", file=file, reason=exc.strerror, key="server.url_file")
    try:
        yield
    finally:
        if file:
            with contextlib.suppress(OSError):
                path.unlink()


def _here(settings: Settings, metrics: Metrics, kept: KeptStreams | None) -> Gateway:
    """Its workers are on this machine."""
    gpus = _gpus()
    # Streams on GPUs are counted by slots.
    measured = settings.limits.usable_share > 0 and not gpus
    capacity = Capacity(settings.limits.usable_share) if measured else None
    placement = LocalPlacement(
        usual_slots(gpus, settings, GpuCosts()) if gpus else None,
        standby=settings.workers.standby,
        streams_per_worker=settings.workers.streams_per_worker,
    )
    return create_app(settings, placement, metrics, capacity, kept)


def _elsewhere(
    cluster: str, listener: socket.socket, settings: Settings, metrics: Metrics, kept: KeptStreams | None
) -> Gateway:
    """Its workers are on the cluster's machines. Raises ValueError where there is no cluster."""
    try:
        # Ray is large, and of the extra `cluster`.
        from server.gateway.placement.ray import RayPlacement
        from server.gateway.placement.ray_cluster import address_here, connect_to_cluster
        from server.gateway.placement.ray_homes import RayHomes
    except ModuleNotFoundError as exc:
        raise ValueError(f"--cluster={cluster!r}: needs {exc.name}: pip install 'livesr[cluster]'") from exc

    connect_to_cluster(cluster)
    limits, costs = settings.limits, load_costs()
    placement = RayPlacement(
        HostActor,
        # What a host is told: no token, no stream.
        Settings(
            limits=limits,
            defaults=settings.defaults,
            workers=settings.workers,
            gpu=settings.gpu,
            log=settings.log,
        ),
        demand=lambda job: bicubic_megapixels(job, costs, limits.assumed_pixels_per_s),
        standby=settings.workers.standby,
    )
    url = settings.server.advertise or page_url(listener, everywhere=address_here())
    fleet = Fleet(RayHomes(), url, address_here())
    return create_app(settings, placement, metrics, None, kept, placement, fleet)


def _config(app: ASGIApp, protocol: type[asyncio.Protocol], server: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        proxy_headers=bool(server.trusted_proxies),
        forwarded_allow_ips=list(server.trusted_proxies),
        log_config=None,
        access_log=False,
    )


def _kept(state: str | None, config: Path | None) -> KeptStreams | None:
    """Where the API's streams survive a restart. Raises ValueError where that can't be as it is asked."""
    if state is None and config is not None:
        try:
            return KeptStreams(config.with_suffix(".db"))
        except CantBeKept as exc:
            log.warning("streams of the API end with the service", reason=str(exc), key="server.state")
            return None
    if not state:
        log.info("streams of the API end with the service", reason="it is unset", key="server.state")
        return None
    try:
        return KeptStreams(Path(state))
    except CantBeKept as exc:
        raise ValueError(f"server.state={state!r}: {exc}") from exc


def _gpus() -> Sequence[Gpu]:
    """Those that this installation can upscale on: without PyTorch every stream runs on the CPU."""
    return nvidia_gpus() if importlib.util.find_spec("torch") else ()


def _settings(args: argparse.Namespace) -> Settings:
    """The file's and the environment's settings, with what the command line says otherwise."""
    said = {
        "server": {"host": args.host, "port": args.port},
        "log": {"level": args.log_level, "format": args.log_format},
    }
    tables: dict[str, Any] = {
        name: {key: value for key, value in table.items() if value is not None}
        for name, table in said.items()
    }
    if args.source is not None:
        source = "stdin:" if args.source == "-" else args.source
        tables["streams"] = [{"id": stream_name(args.source), "source": source}]
    settings = load(args.config, tables)
    settings.check_slates()
    return settings


def stream_name(source: str) -> str:
    """A stream id out of what may be shown of its source: the last part of the path, or else the host."""
    place, network, rest = mask_url(source).partition("?")[0].partition("://")
    host, *path = rest.rpartition("@")[2].split("/")
    known = [part for part in path if part not in ("", "***")]
    name = host if network and not known else Path(known[-1] if network else place).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:63] or "live"


class _Server(uvicorn.Server):
    """Says where it is once it is there, and drains before it ends."""

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], None],
        app: Gateway,
        drain_s: float,
        read_again: Callable[[], Settings],
        hung_up: threading.Event,
    ) -> None:
        """`ready` is called once it listens; `read_again` reads the settings for SIGHUP, and raises
        ValueError; `hung_up` is set where that came before it started."""
        super().__init__(config)
        self._ready = ready
        self._app = app
        self._drain_s = drain_s
        self._read_again = read_again
        self._hung_up = hung_up
        self._reloads: set[asyncio.Task[None]] = set()
        self._second: tuple[uvicorn.Config, socket.socket] | None = None

    def also(self, config: uvicorn.Config, listener: socket.socket) -> None:
        """Serves this, too, as long as the first."""
        config.load()
        self._second = config, listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._second is not None:
            config, listener = self._second

            def protocol() -> asyncio.Protocol:
                return config.http_protocol_class(  # type: ignore[call-arg]
                    config=config, server_state=self.server_state, app_state={}
                )

            self.servers.append(await asyncio.get_running_loop().create_server(protocol, sock=listener))
        # What is there now stays: the collector needn't go through it again and again, with everyone waiting.
        gc.collect()
        gc.freeze()
        if self.started:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._start_reload)
            if self._hung_up.is_set():
                self._start_reload()
            self._ready()

    def _start_reload(self) -> None:
        task = asyncio.create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        try:
            await self._app.reload(await asyncio.to_thread(self._read_again))
        except ValueError as exc:
            log.error("settings refused", reason=str(exc))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            # Whoever asks twice waits for nothing. The workers end by themselves when their sockets do.
            log.warning("service ends at once", reason="asked to end again")
            logging.shutdown()
            os._exit(0)
        self.should_exit = True

    async def main_loop(self) -> None:
        await super().main_loop()
        until_s = asyncio.get_running_loop().time() + self._drain_s
        log.info("service ends", drain_s=self._drain_s)
        try:
            await asyncio.wait_for(self._app.drain(), self._drain_s)
        except TimeoutError:
            log.warning("drain cut short", drain_s=self._drain_s)
        # Answers that are still being sent have the rest of the time; uvicorn has no end of it without this.
        left_s = max(0.0, until_s - asyncio.get_running_loop().time())
        self.config.timeout_graceful_shutdown = left_s  # type: ignore[assignment]
