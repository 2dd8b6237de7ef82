"""TLS between gateway and host: a certificate that the host makes as it starts, known by its fingerprint."""

import hashlib
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_VALID = timedelta(days=3650)
_EARLIER = timedelta(days=1)  # of a gateway whose clock is behind


def host_context() -> tuple[ssl.SSLContext, str]:
    """A certificate that nobody else has, and its fingerprint. The key is never kept."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "livesr host")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + _VALID)
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # OpenSSL reads them from files only; this one is its owner's alone, and gone at once.
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
        context.load_cert_chain(file.name)
    return context, fingerprint(certificate.public_bytes(serialization.Encoding.DER))


def gateway_context() -> ssl.SSLContext:
    """Takes any certificate: who connects compares its fingerprint before a word is said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of the certificate (DER), in hexadecimal digits."""
    return hashlib.sha256(certificate).hexdigest()
