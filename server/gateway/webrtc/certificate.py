"""The certificate that clients know the gateway by: one for all of a day, with one context for their DTLS."""

import time

from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import SRTPProtectionProfile
from OpenSSL import SSL

_RENEWED_AFTER_S = 86_400.0  # it holds for thirty days, and for sessions that began with it


class _Shared(RTCCertificate):
    """Sets up OpenSSL once: key, certificate and context take longer than the handshake."""

    _context: SSL.Context | None = None

    def _create_ssl_context(self, srtp_profiles: list[SRTPProtectionProfile]) -> SSL.Context:
        if self._context is None:
            self._context = super()._create_ssl_context(srtp_profiles)
            # A client that resumed another's session would have no certificate of its own to be known by.
            self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        return self._context


class Certificates:
    """Made when it is first asked for."""

    def __init__(self) -> None:
        self._current: RTCCertificate | None = None
        self._made_s = 0.0

    @property
    def current(self) -> RTCCertificate:
        now_s = time.monotonic()
        if self._current is None or now_s - self._made_s > _RENEWED_AFTER_S:
            self._current, self._made_s = _Shared.generateCertificate(), now_s
        return self._current
