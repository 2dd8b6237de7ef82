"""Receives by SRT what comes from one other side, and writes each message to stdout, a socket of packets.

Started as `python -m server.srt.main`, with its job in the first line of stdin: an address may hold a
passphrase, and lists of processes are public. Ends with its stdin, and with the connection: why is the last
line of its stderr.
"""

import os
import socket
import sys
import threading
from typing import NoReturn

import msgspec

from server.srt import libsrt
from server.wire.srt import SrtJob


def receive(job: SrtJob, out: socket.socket) -> None:
    """Until the other side has gone. Raises libsrt.SrtError; OSError once nobody reads."""
    if job.address.mode == "listener":
        connection = libsrt.accept(job.address, job.hosts[0])
    else:
        connection = libsrt.call(job.address, job.hosts, timeout_s=job.timeout_s)
    while True:
        out.send(connection.receive())


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)  # calls of libsrt's wait for ever


def main() -> NoReturn:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=SrtJob)
    threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
    try:
        receive(job, socket.socket(fileno=sys.stdout.fileno()))
    except (libsrt.SrtError, OSError) as exc:
        print(exc, file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    main()
