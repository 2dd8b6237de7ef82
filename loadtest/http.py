"""HTTP to the service under test: small blocking calls, each error one readable line."""

import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

TIMEOUT_S = 10.0
MAX_BODY_BYTES = 16 << 20

# The server is named by the operator and reached directly, whatever proxy the environment is set up for.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


_token = ""  # sent with every request; set once in each process


class ServerError(ValueError):
    """The service can't be reached, or answered what the test can't go on with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def reason(self) -> str:
        """What the service says was wrong: its JSON `detail`, or the first line of the body."""
        try:
            detail = json.loads(self.body)["detail"]
        except (ValueError, KeyError, TypeError):
            detail = self.text.strip().partition("\n")[0]
        return f"{self.status} {detail}"[:300].strip()


def use_token(token: str) -> None:
    """From now on this process's requests carry the token; none where it is empty."""
    global _token
    if not re.fullmatch(r"[!-~]*", token):
        raise ValueError("--token: must be of visible ASCII characters")
    _token = token


def used_token() -> str:
    return _token


def base_url(text: str) -> str:
    """Checks the address of a service and ends it with a slash."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"--url {text}: must look like http://HOST:PORT/")
    return text.rstrip("/") + "/"


def request(method: str, url: str, body: bytes | None = None, content_type: str | None = None) -> Response:
    """One request, its error statuses returned like any other; raises ServerError where nothing answers."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    call = urllib.request.Request(url, data=body, method=method, headers=headers)  # noqa: S310 - the user's own
    if _token:
        # Unredirected: it is for the service that was named, and no other.
        call.add_unredirected_header("Authorization", f"Bearer {_token}")
    try:
        with _opener.open(call, timeout=TIMEOUT_S) as answer:
            return _response(answer.status, answer.headers, answer)
    except urllib.error.HTTPError as error:
        with error:
            return _response(error.code, error.headers, error)
    except OSError as exc:
        raise ServerError(f"{url} can't be reached: {getattr(exc, 'reason', exc)}") from exc


def stream_state(base: str, stream: str) -> dict[str, Any]:
    """What the API says of one stream; raises ServerError naming the streams that exist where it doesn't."""
    url = urljoin(base, f"api/streams/{quote(stream, safe='')}")
    answer = request("GET", url)
    if answer.status in (401, 403):
        raise ServerError(f"{base} refuses: {answer.reason()} (--token or LIVESR_TOKEN)")
    if answer.status == 404:
        known = ", ".join(s["id"] for s in _json(request("GET", urljoin(base, "api/streams")), base))
        raise ServerError(f"no stream {stream!r} at {base}; there are: {known or 'none'}")
    state = _json(answer, base)
    if not isinstance(state, dict):
        raise ServerError(f"{url} is no livesr service: {answer.reason()}")
    return state


def _json(answer: Response, base: str) -> Any:
    try:
        if answer.status == 200:
            return json.loads(answer.body)
    except ValueError:
        pass
    raise ServerError(f"{base} is no livesr service: {answer.reason()}")


def _response(status: int, headers: Any, stream: Any) -> Response:
    names = {name.lower(): value for name, value in headers.items()}
    return Response(status=status, headers=names, body=stream.read(MAX_BODY_BYTES))
