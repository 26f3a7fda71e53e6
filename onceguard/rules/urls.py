"""Addresses of lock servers, as Celery's users write them."""

from __future__ import annotations

import re

CLUSTERS = ("redis+cluster", "rediss+cluster")
SCHEMES = ("redis", "rediss", "redis+socket", "socket", "unix", "sentinel", *CLUSTERS)
MEMORY = "memory"
"""Celery has a broker of that scheme: it is our lock server only where it is said to be."""

SEVERAL = ("sentinel", *CLUSTERS)
"""What several URLs may be of that lead to one lock server."""

_NEXT_URL = re.compile(r";(?=[A-Za-z][A-Za-z0-9+.\-]*://)")
_PASSWORD_IN_QUERY = re.compile(r"([?&][a-z_]*password=)[^&]*", re.IGNORECASE)
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:/?#]*)(:\d*)?([/?#].*)?", re.DOTALL)


def scheme(url: str) -> str:
    """Return what stands before ``://``, or an empty string."""
    head, found, _ = url.partition("://")
    return head.lower() if found else ""


def split_urls(value: object) -> list[str]:
    """Return the URLs of a setting that may be a URL, a list of them or ``a;b`` (failover)."""
    if isinstance(value, str):
        return _NEXT_URL.split(value)
    if isinstance(value, (list, tuple)):
        return [url for part in value for url in split_urls(part)]
    return []


def redact(url: str) -> str:
    """
    Return *url* without its password, for logs and errors.

    Passwords that were not percent-encoded may hold ``/``, ``#``, ``?`` and
    ``@``, so everything up to the last ``@`` counts as user and password. What
    can't be told apart is left out.
    """
    return ";".join(_redact_one(part) for part in _NEXT_URL.split(url))


def _redact_one(url: str) -> str:
    head, found, rest = url.partition("://")
    if not found:
        head, rest = "", url
    credentials, at, address = rest.rpartition("@")
    if at and _PASSWORD_IN_QUERY.search(credentials):
        return f"{head}{found}***"
    if at:
        user, colon, _ = credentials.partition(":")
        rest = f"{user}:***@{address}" if colon else f"***@{address}"
    elif found and not _HOST_AND_PORT.fullmatch(rest):
        rest = "***"
    return _PASSWORD_IN_QUERY.sub(r"\1***", f"{head}{found}{rest}")
