"""The Ray cluster that a gateway joins."""

import logging
import os
import socket

import ray
from ray.exceptions import RayError

from server.settings import split_address

NAMESPACE = "livesr"
_LOOK_FOR_S = 3.0
# The connection preface with no settings, which a server answers with its own (RFC 9113, section 3.4).
_HTTP2_BEGINS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_HTTP2_SETTINGS = b"\x04"


def connect_to_cluster(address: str) -> None:
    """Raises ValueError for an address where no Ray cluster is."""
    named = f"--cluster={address!r}"
    try:
        if address != "auto":
            _look_for_grpc(split_address(address))
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError, RayError) as exc:
        raise ValueError(f"{named}: no Ray cluster there: {str(exc).splitlines()[0]}") from exc


def _look_for_grpc(address: tuple[str, int]) -> None:
    """Raises OSError where none is: Ray by itself tries for a quarter of an hour."""
    with socket.create_connection(address, timeout=_LOOK_FOR_S) as connection:
        if os.environ.get("RAY_USE_TLS", "0") != "0":  # it would have to be by TLS
            return
        connection.sendall(_HTTP2_BEGINS)
        if connection.recv(9)[3:4] != _HTTP2_SETTINGS:
            raise OSError("what listens there isn't Ray")


def address_here() -> str:
    """Of this machine, as the cluster knows it."""
    address: str = ray.util.get_node_ip_address()
    return address
