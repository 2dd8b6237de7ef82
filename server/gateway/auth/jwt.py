"""JSON Web Tokens (RFC 7519) as RFC 9068 uses them: issuer, audience, expiry, and scopes in one string.

The only file that imports joserfc.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwa import EdDSAAlgorithm
from joserfc.jwk import KeySet, OctKey
from joserfc.jws import JWSRegistry

from server.gateway.auth.scopes import Caller
from server.settings import Jwt

MIN_SECRET_BYTES = 32  # RFC 7518, section 3.2


class InvalidJwt(ValueError):
    """A token that is no JWT, or none that this service takes; the message says why."""


class JwtVerifier:
    """Raises ValueError where the settings' file holds no usable key."""

    def __init__(self, settings: Jwt) -> None:
        # The kind of key decides on the algorithm, never the token: no public key is taken for a secret.
        self._keys: OctKey | KeySet
        if settings.secret_file is not None:
            self._keys, self._registry = _read_secret(settings), _registry("HS256")
        else:
            self._keys, self._registry = _read_jwks(settings), _registry("RS256", "ES256", "EdDSA")
        self._claims = jwt.JWTClaimsRegistry(
            leeway=settings.leeway_s,
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": settings.audience},
            exp={"essential": True},
        )

    def verify(self, token: str) -> Caller:
        """Raises InvalidJwt."""
        try:
            claims = jwt.decode(token, self._keys, registry=self._registry).claims
            self._claims.validate(claims)
        except JoseError as exc:
            raise InvalidJwt(exc.description or exc.error.replace("_", " ")) from exc
        except (ValueError, TypeError, KeyError, RecursionError) as exc:  # of what isn't even shaped like one
            raise InvalidJwt("it is neither a token of the settings nor a JWT") from exc
        scope = claims.get("scope", "")
        if not isinstance(scope, str):
            raise InvalidJwt("its claim 'scope' must be a string")
        return Caller(name=str(claims.get("sub", "JWT"))[:64], scopes=frozenset(scope.split()))


def sign(settings: Jwt, *, subject: str, scopes: Sequence[str], lifetime_s: int) -> str:
    """A JWT by the secret of the settings; raises ValueError where they have none."""
    now_s = int(time.time())
    claims = {
        "iss": settings.issuer,
        "aud": settings.audience,
        "sub": subject,
        "scope": " ".join(scopes),
        "iat": now_s,
        "exp": now_s + lifetime_s,
    }
    return jwt.encode({"alg": "HS256"}, claims, _read_secret(settings))


def _registry(*algorithms: str) -> JWSRegistry:
    """Takes these algorithms, and no other."""
    # RFC 9864 has a new name for it, and joserfc warns at each use of the old one, which issuers still send.
    eddsa = EdDSAAlgorithm()
    eddsa.security_warning = ""
    registry = JWSRegistry(algorithms=algorithms)
    registry.algorithms = {**JWSRegistry.algorithms, eddsa.name: eddsa}
    return registry


def _read_secret(settings: Jwt) -> OctKey:
    """The key for HS256; raises ValueError."""
    if settings.secret_file is None:
        raise ValueError("auth.jwt.secret_file: must be set; tokens for a JWKS are made by its issuer")
    name = f"auth.jwt.secret_file={str(settings.secret_file)!r}"
    secret = _read(settings.secret_file, name).strip()
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"{name}: must hold at least {MIN_SECRET_BYTES} bytes")
    return OctKey.import_key(secret)


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ValueError(f"{name}: can't be read: {exc.strerror}") from exc


def _read_jwks(settings: Jwt) -> KeySet:
    name = f"auth.jwt.jwks_file={str(settings.jwks_file)!r}"
    assert settings.jwks_file is not None
    text = _read(settings.jwks_file, name)
    try:
        keys = KeySet.import_key_set(json.loads(text))
    except (JoseError, ValueError, TypeError, KeyError) as exc:
        raise ValueError(f"{name}: must be a JSON Web Key Set (RFC 7517): {exc}") from exc
    if any(key.key_type == "oct" for key in keys):
        raise ValueError(f"{name}: must hold public keys only; a secret goes into auth.jwt.secret_file")
    return keys
