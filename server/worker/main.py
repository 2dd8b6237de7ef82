"""The process of a host of streams.

Started as `python -m server.worker.main --fd N`, N being an inherited Unix socket. Over it the gateway hands
down the socket of each stream, which speaks `wire.codec`; its end is the end of the process, which closes its
own side where it wants no further stream.
"""

import argparse
import gc
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import NoReturn

from server.wire.logs import log_as_parent
from server.worker.engines import LoadBy, engine_loader
from server.worker.host import Host


def main(load_by: LoadBy = engine_loader) -> NoReturn:
    parser = argparse.ArgumentParser(prog="python -m server.worker.main")
    parser.add_argument("--fd", type=int, required=True)
    args = parser.parse_args()
    log_as_parent()
    control = socket.socket(fileno=args.fd)
    gc.freeze()  # what is imported stays: collecting what a stream leaves is then quick
    Host(load_by, retire=lambda: _close_own_side(control)).run(handed_down(control))
    logging.shutdown()
    # A thread may still be inside a read that only the source's timeout ends, or build an engine; nothing is
    # left to tidy up.
    os._exit(0)


def handed_down(control: socket.socket) -> Iterator[socket.socket]:
    """Sockets of streams, until the gateway hands down no more, or is gone."""
    with suppress(ConnectionResetError):
        while True:
            data, descriptors, _, _ = socket.recv_fds(control, 1, 1, socket.MSG_CMSG_CLOEXEC)
            if not data:
                return
            for descriptor in descriptors:
                yield socket.socket(fileno=descriptor)


def _close_own_side(control: socket.socket) -> None:
    with suppress(OSError):  # the gateway was first
        control.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
