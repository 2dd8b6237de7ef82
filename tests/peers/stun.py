"""Whether a STUN or TURN server listens."""

import socket

BINDING_REQUEST = bytes.fromhex("0001 0000 2112a442") + bytes(12)  # RFC 8489, section 5


def answers(port: int) -> bool:
    """A STUN request by UDP to a server on this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.2)
        asking.connect(("127.0.0.1", port))
        try:
            asking.send(BINDING_REQUEST)
            return bool(asking.recv(2048))
        except (ConnectionRefusedError, TimeoutError):
            return False
