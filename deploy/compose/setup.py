"""Makes what the services of compose.yaml share, in the folder that it is given, unless it is there.

That is a certificate that nobody vouches for, for nginx until it has a real one, and TURN's secret with
coturn's settings.
"""

import os
import secrets
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from aioice.ice import get_host_addresses
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

KEPT_FOR = timedelta(days=365)
# The relay sends to nobody but this machine, where the service is: else it is a way into its network.
COTURN = """listening-port=3478
realm={host}
use-auth-secret
static-auth-secret={secret}
no-tls
no-dtls
no-cli
no-multicast-peers
pidfile=/tmp/turnserver.pid
userdb=/tmp/turndb
log-file=stdout
denied-peer-ip=0.0.0.0-255.255.255.255
denied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
"""


def main() -> None:
    folder, host = Path(sys.argv[1]), sys.argv[2]
    certificate, key = folder / "fullchain.pem", folder / "privkey.pem"
    if not certificate.exists():
        key_pem, certificate_pem = self_signed(host)
        write(key, key_pem)
        write(certificate, certificate_pem)
    secret = folder / "turn.secret"
    if not secret.exists():
        write(secret, secrets.token_urlsafe(32).encode())
    settings = COTURN.format(host=host, secret=secret.read_text())
    addresses = get_host_addresses(use_ipv4=True, use_ipv6=True)
    settings += "".join(f"allowed-peer-ip={address}\n" for address in addresses)
    write(folder / "turnserver.conf", settings.encode())


def self_signed(host: str) -> tuple[bytes, bytes]:
    """Key and certificate for that name or address, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    try:
        known_as: x509.GeneralName = x509.IPAddress(ip_address(host))
    except ValueError:
        known_as = x509.DNSName(host)
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + KEPT_FOR)
        .add_extension(x509.SubjectAlternativeName([known_as]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, made.public_bytes(serialization.Encoding.PEM)


def write(path: Path, data: bytes) -> None:
    """Whole or not at all, for its owner only."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
    partial.replace(path)


main()
