"""What logs and the API may show of a URL."""

import re


def mask_credentials(text: str) -> str:
    """The text with the user, password and query of every URL in it hidden: for logs and the API."""
    return re.sub(r"(\w://)([^\s/?'\"]+@)?([^\s?'\"]*)(\?[^\s'\"]*)?", _masked, text)


def _masked(url: re.Match[str]) -> str:
    scheme, user, rest, query = url.groups()
    return f"{scheme}{'***@' if user else ''}{rest}{'?***' if query else ''}"
