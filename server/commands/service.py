"""A running service's API, for commands: blocking calls, each error one line with what to do about it."""

import argparse
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

TIMEOUT_S = 15.0
SILENT_S = 60.0  # /api/events says something every fifteen seconds
_MOST_BYTES = 16 << 20


class _NotSentOn(urllib.request.HTTPRedirectHandler):
    """To a stream's home at another gateway: the token is for the one that was named."""

    def http_error_307(self, *args: Any) -> None:
        return None


# The service is named by the operator and reached directly, whatever proxy the environment is set up for.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NotSentOn())

_HINTS = {
    401: "set LIVESR_TOKEN, or --token-file",
    403: "`livesr token` makes tokens with other scopes",
    404: "`livesr streams list` shows those that there are",
}


class ServiceError(ValueError):
    """The service can't be reached, or refused what was asked; the text is for the user."""


def add_service_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        default=os.environ.get("LIVESR_URL", "http://127.0.0.1:8080/"),
        help="address of the service; or LIVESR_URL in the environment (%(default)s)",
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="holds the token; or LIVESR_TOKEN has it"
    )


class Service:
    """Raises ServiceError wherever the service isn't there or refuses."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServiceError(f"--url {url}: must look like http://HOST:PORT/")
        if not re.fullmatch(r"[!-~]*", token):
            raise ServiceError("the token must be one word of visible ASCII characters")
        self._url = url.rstrip("/") + "/"
        self._token = token

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Service":
        """As `add_service_arguments` were given."""
        if args.token_file is None:
            return cls(args.url, os.environ.get("LIVESR_TOKEN", ""))
        try:
            return cls(args.url, args.token_file.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as exc:
            raise ServiceError(f"--token-file {args.token_file}: can't be read: {exc}") from exc

    def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> Any:
        """The answer's JSON; None where it has none."""
        with self._open(method, path, body, timeout_s) as answer:
            text = answer.read(_MOST_BYTES)
        try:
            return json.loads(text) if text else None
        except ValueError as exc:
            raise ServiceError(f"{self._url}{path} answers no JSON (is it livesr?)") from exc

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What happens to streams, by name and data, until the service closes."""
        with self._open("GET", "api/events", None, SILENT_S) as answer:
            name = ""
            try:
                for line in answer:
                    field, _, value = line.decode("utf-8", "replace").rstrip("\n").partition(": ")
                    if field == "event":
                        name = value
                    elif field == "data":
                        yield name, json.loads(value)
            except (OSError, HTTPException, ValueError) as exc:
                raise ServiceError(f"{self._url} broke off: {exc}") from exc

    def _open(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> HTTPResponse:
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        call = urllib.request.Request(self._url + path, data=data, method=method, headers=headers)  # noqa: S310
        if self._token:
            # Unredirected: it is for the service that was named, and no other.
            call.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            return cast(HTTPResponse, _opener.open(call, timeout=timeout_s))
        except urllib.error.HTTPError as error:
            with error:
                raise ServiceError(_refusal(error)) from error
        except (OSError, HTTPException) as exc:
            reason = getattr(exc, "reason", exc)
            raise ServiceError(
                f"{self._url} can't be reached: {getattr(reason, 'strerror', None) or reason} "
                "(`livesr serve` starts a service, --url says where it is)"
            ) from exc


def _refusal(error: urllib.error.HTTPError) -> str:
    if error.code == HTTPStatus.TEMPORARY_REDIRECT:
        home = urlsplit(error.headers.get("Location", ""))
        return f"the stream is at home at another gateway (--url {home.scheme}://{home.netloc}/)"
    try:
        detail = json.loads(error.read(_MOST_BYTES))["detail"]
    except (ValueError, KeyError, TypeError, OSError):
        detail = error.reason
    hint = _HINTS.get(error.code)
    return f"{detail}{f' ({hint})' if hint else ''}"
