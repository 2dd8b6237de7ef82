"""Before a pod of the cluster ends: its streams move to others, as `livesr drain` has them do.

    python3 leave.py GATEWAYS TOKEN_FILE SECONDS

GATEWAYS is NAME:PORT, where NAME has an address for each gateway, POD_IP in the environment this pod's own.
Ends with 0 once no stream of a gateway that answers is left here, after SECONDS with 1.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from server.commands.service import Service, ServiceError

_PAUSE_S = 5.0


def main(gateways: str, token_file: str, seconds: str) -> int:
    until_s = time.monotonic() + float(seconds)
    while _streams_are_left(gateways, token_file):
        if time.monotonic() > until_s - _PAUSE_S:
            return 1
        time.sleep(_PAUSE_S)
    return 0


def _streams_are_left(gateways: str, token_file: str) -> bool:
    name, _, port = gateways.rpartition(":")
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except socket.gaierror as exc:
        print(f"no gateway: {name}: {exc.strerror}", file=sys.stderr)
        return False
    addresses = {str(sockaddr[0]) for *_, sockaddr in found}
    urls = [f"http://{f'[{address}]' if ':' in address else address}:{port}/" for address in addresses]
    drained = [_drained(url, token_file) for url in urls]  # each of them, whatever another says
    return not all(drained)


def _drained(url: str, token_file: str) -> bool:
    try:
        nodes = Service(url, Path(token_file).read_text().strip()).ask("GET", "api/nodes")
    except ServiceError as exc:
        print(exc, file=sys.stderr)
        return True
    # What a node is called begins with its address.
    here = [node["name"] for node in nodes if node["name"].startswith(os.environ["POD_IP"] + "-")]
    command = ["livesr", "drain", "--url", url, "--token-file", token_file]
    return all(subprocess.run([*command, name]).returncode == 0 for name in here)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
