"""Where the lock server is: its URL and the options that go with it, read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from onceguard.rules import checks
from onceguard.rules.checks import ProblemError
from onceguard.rules.login import LOGIN, asks_for_tls, read_login
from onceguard.rules.urls import CLUSTERS, MEMORY, SEVERAL, redact, scheme, split_urls

OPTIONS = ("master_name", "min_other_sentinels", "sentinel_kwargs", *LOGIN)
"""What once_transport_options may hold."""

Place = tuple[str, int]
"""Host and port."""

_SOCKETS = {"redis+socket", "socket", "unix"}
_DATABASES = ("db", "virtual_host")
_LIMITS = ("socket_timeout", "socket_connect_timeout")
_DECIDED_HERE = (
    *_LIMITS,
    "health_check_interval",
    "max_connections",
    "retry_on_error",
    "retry_on_timeout",
    "socket_read_size",
)
_SHORTEST_SECRET = 4
_LEAST_MASTERS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """
    A lock server, the sentinels that know where it is, or nodes of a Cluster.

    Attributes:
        url: As it was written; see `shown`.
        places: Host and port of the server, or of each sentinel or node; none for a unix
            socket.
        login: Keyword arguments of redis-py's client, without host and port.
        master_name: What the sentinels call the server; None: there are no sentinels.
        min_other_sentinels: How many others a sentinel must know to be believed.
        sentinel_login: Keyword arguments of redis-py's client for the sentinels.
        masters: Independent servers of which a majority decides; then nothing else is said.
    """

    url: str = field(repr=False)
    places: tuple[Place, ...]
    login: Mapping[str, Any] = field(repr=False)
    master_name: str | None = None
    min_other_sentinels: int = 0
    sentinel_login: Mapping[str, Any] = field(default_factory=dict, repr=False)
    masters: tuple[Address, ...] = ()

    @property
    def cluster(self) -> bool:
        """Whether the places are nodes of a Cluster."""
        return scheme(self.url) in CLUSTERS

    @property
    def memory(self) -> bool:
        """Whether it is in the memory of each process."""
        return scheme(self.url) == MEMORY

    @property
    def shown(self) -> str:
        """The URL without its passwords."""
        return redact(self.url)

    @property
    def client(self) -> dict[str, Any]:
        """Keyword arguments of redis-py's client for a single server."""
        there = dict(zip(("host", "port"), self.places[0], strict=True)) if self.places else {}
        return {**self.login, **there}

    def at(self, place: Place) -> Address:
        """Return the address of one node."""
        host, port = place
        shown = f"[{host}]" if ":" in host else host
        return replace(self, url=f"{scheme(self.url)}://{shown}:{port}", places=(place,))

    def hide(self, text: str) -> str:
        """
        Take passwords out of what a driver or a server said.

        A server that has no AUTH answers with the words that it did not know.
        """
        for secret in self.secrets():
            text = text.replace(secret, "***")
        return text

    def secrets(self) -> list[str]:
        """All passwords, the longest first."""
        given = [*self.login.items(), *self.sentinel_login.items()]
        words = {str(value) for name, value in given if name.endswith("password")}
        words = words.union(*(master.secrets() for master in self.masters))
        return sorted((word for word in words if len(word) >= _SHORTEST_SECRET), key=len)[::-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """
    The settings in which an address is written.

    Attributes:
        url: Where its URL stands.
        options: Where its options stand.
        strict: Whether a word that nobody knows is a mistake; Celery's own settings
            hold words for others.
    """

    url: str = "once_url"
    options: str = "once_transport_options"
    strict: bool = True


def read_address(
    url: str, options: Mapping[str, Any] | None = None, written: Written | None = None
) -> Address:
    """
    Read where the lock server is.

    Args:
        url: ``redis://``, ``rediss://``, ``redis+socket://``, ``socket://``, ``unix://``,
            ``sentinel://a;sentinel://b``, ``redis+cluster://a;redis+cluster://b``
            (``rediss+cluster`` with TLS), or ``memory://``.
        options: As `OPTIONS`; what the URL says comes first.
        written: Where they stand, for the error.

    Raises:
        ProblemError: It can't be read, or the name of the master is missing.
    """
    if scheme(url) == MEMORY:
        return Address(url=url, places=(), login={})
    options, written = options or {}, written or Written()
    parts = [_split(each, written) for each in split_urls(url)]
    said: dict[str, Any] = {}
    for part in reversed(parts):  # of sentinels the first that says it, as Celery has it
        said |= _said_by(part, written)
    tls = "path" not in said and (asks_for_tls(said) or asks_for_tls(options))
    login = read_login({"ssl": tls, **options, **said}, written.options)
    if "path" in said:
        login["unix_socket_path"] = said["path"]
    sentinels, cluster = scheme(url) == "sentinel", scheme(url) in CLUSTERS
    if cluster and said.get("db"):
        raise ProblemError(
            f"{written.url}={redact(url)!r}: a Redis Cluster has no database but 0. Keep apps "
            "apart with once_prefix, and leave the number out."
        )
    if written.strict and not sentinels and options.get("master_name"):
        raise ProblemError(
            f"{written.options} has a master_name, which only sentinels know, but "
            f"{written.url}={redact(url)!r} does not start with 'sentinel://'."
        )
    return Address(
        url=url,
        places=tuple(_place(part) for part in parts if part.scheme not in _SOCKETS),
        login={**login, "db": said.get("db", 0)},
        master_name=_master_name(url, options, written) if sentinels else None,
        min_other_sentinels=int(options.get("min_other_sentinels") or 0),
        sentinel_login=_sentinel_login(options, written) if sentinels else {},
    )


def read_masters(
    urls: Sequence[str],
    options: Mapping[str, Any] | None = None,
    written: Written | None = None,
) -> Address:
    """
    Read where independent masters are, of which a majority decides.

    Args:
        urls: Of each; neither sentinels nor nodes of a Cluster.
        options: For all of them.
        written: Where they stand, for the error.

    Raises:
        ProblemError: One can't be read, two are the same, or they are too few.
    """
    written = written or Written()
    if len(urls) < _LEAST_MASTERS:
        raise ProblemError(
            f"{written.url} lists {len(urls)} servers, but a majority that outlives one of "
            f"them needs {_LEAST_MASTERS}. List three or five, or give one URL that is no list."
        )
    for url in urls:
        if scheme(url) in (*SEVERAL, MEMORY):
            raise ProblemError(
                f"{written.url} lists {redact(url)!r}, but each must be one server of its "
                "own, behind no sentinels and in no Cluster. Give that alone, not in a list."
            )
    masters = tuple(read_address(url, options, written) for url in urls)
    for place, master in enumerate(masters):
        if master.client in [each.client for each in masters[:place]]:
            raise ProblemError(
                f"{written.url} lists {master.shown!r} twice: its vote would count double."
            )
    return Address(url=";".join(urls), places=(), login={}, masters=masters)


def check_options(name: str, value: Any) -> dict[str, Any]:
    """Check the names in a dict of options that is ours alone."""
    if not isinstance(value, Mapping):
        raise ProblemError(f"{name} must be a dict, got {type(value).__name__}.")
    problems = [*_unknown(name, value, OPTIONS)]
    problems += _unknown(f"sentinel_kwargs in {name}", _sentinel_kwargs(value, name), LOGIN)
    if problems:
        raise ProblemError(*problems)
    others = value.get("min_other_sentinels")
    if others is not None:
        checks.whole(f"min_other_sentinels in {name}", others, least=0)
    return dict(value)


def _unknown(name: str, given: Iterable[str], known: Iterable[str]) -> Iterable[str]:
    for word in given:
        if word not in known:
            hint = " Set once_socket_timeout." if word in _LIMITS else ""
            hint = hint or checks.suggestion(word, known)
            yield f"{word!r} is not an option of {name}.{hint}"


def _split(url: str, written: Written) -> SplitResult:
    with suppress(ValueError):  # whose text has what was taken for a port: half a password
        parts = urlsplit(url)
        if parts.port != 0 and not _torn(parts):
            return parts
    raise ProblemError(
        f"{written.url}={redact(url)!r} can't be read. Write special characters in user and "
        "password percent-encoded: urllib.parse.quote(password, safe='')."
    )


def _torn(parts: SplitResult) -> bool:
    """Whether a piece of the password was taken for something else."""
    if parts.scheme in _SOCKETS:
        return not parts.path
    query = "" if "password=" in parts.query else parts.query
    return bool(parts.fragment) or "@" in parts.path + query


def _place(parts: SplitResult) -> tuple[str, int]:
    default = 26379 if parts.scheme == "sentinel" else 6379
    return unquote(parts.hostname or "localhost"), parts.port or default


def _said_by(parts: SplitResult, written: Written) -> dict[str, Any]:
    """Read what stands in a URL besides the place."""
    said: dict[str, Any] = dict(parse_qsl(parts.query))
    if written.strict:
        known = (*LOGIN, *_DATABASES, *_DECIDED_HERE)
        if problems := [*_unknown(f"the query of {written.url}", said, known)]:
            raise ProblemError(*problems)
    database = said.pop("db", None) or said.pop("virtual_host", None) or ""
    if parts.scheme in _SOCKETS:
        said["path"] = unquote(parts.path)
    else:
        database = database or unquote(parts.path)
    if parts.scheme.startswith("rediss"):
        said["ssl"] = True
    for name in ("username", "password"):
        if getattr(parts, name):
            said[name] = unquote(getattr(parts, name))
    if number := database.strip("/"):
        said["db"] = _database(number, parts.geturl(), written)
    return said


def _database(text: str, url: str, written: Written) -> int:
    if not text.isdecimal():
        raise ProblemError(f"{written.url}={redact(url)!r}: the database must be a number.")
    return int(text)


def _master_name(url: str, options: Mapping[str, Any], written: Written) -> str:
    name = options.get("master_name")
    if not name or not isinstance(name, str):
        raise ProblemError(
            f"{written.url}={redact(url)!r} names sentinels, but not whom they watch. Set "
            f"{written.options}={{'master_name': 'mymaster'}}, with the name that the "
            "sentinels' configuration gives the master."
        )
    return name


def _sentinel_login(options: Mapping[str, Any], written: Written) -> dict[str, Any]:
    given = _sentinel_kwargs(options, written.options)
    return read_login(given, f"sentinel_kwargs in {written.options}")


def _sentinel_kwargs(options: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    given = options.get("sentinel_kwargs") or {}
    if not isinstance(given, Mapping):
        raise ProblemError(
            f"sentinel_kwargs in {name} must be a dict, got {type(given).__name__}."
        )
    return given
