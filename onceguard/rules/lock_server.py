"""Which server holds the locks: ``once_url``, the broker or the result backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from onceguard.rules.address import Address, Written, read_address, read_masters
from onceguard.rules.checks import ProblemError
from onceguard.rules.errors import InvalidSettings
from onceguard.rules.login import asks_for_tls
from onceguard.rules.settings import OWNER, Settings
from onceguard.rules.urls import SCHEMES, SEVERAL, redact, scheme, split_urls

_HEEDED = (
    "master_name",
    "min_other_sentinels",
    "sentinel_kwargs",
    "client_name",
    "socket_keepalive",
    "socket_keepalive_options",
)
"""What Celery itself takes from a transport's options to connect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """
    A server that Celery is configured with, and how it is let in there.

    Attributes:
        url: The setting: a URL, several to fail over to, or nothing.
        options: Its transport options.
        use_ssl: Its dict of certificates; anything else means nothing to Redis.
        login: User and password, where the URL has none.
        written: Where these stand.
        unverified: Whether TLS without a word on certificates verifies none, as
            Celery does with a broker.
    """

    url: object = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    use_ssl: object = field(default=None, repr=False)
    login: Mapping[str, Any] = field(default_factory=dict, repr=False)
    written: Written = field(default_factory=Written)
    unverified: bool = False


def broker_of(conf: Any) -> Configured:
    """Read what Celery's configuration says about its broker."""
    return Configured(
        # Attributes, not get(): these also know Celery's environment variables and -b.
        url=conf.broker_url or conf.broker_read_url,
        options=conf.get("broker_transport_options") or {},
        use_ssl=conf.get("broker_use_ssl"),
        login={
            "username": conf.get("broker_user"),
            "password": conf.get("broker_password"),
        },
        written=Written(url="broker_url", options="broker_transport_options", strict=False),
        unverified=True,
    )


def backend_of(conf: Any) -> Configured:
    """Read what Celery's configuration says about its result backend."""
    options = "result_backend_transport_options"
    return Configured(
        url=conf.result_backend,
        options=conf.get(options) or {},
        use_ssl=conf.get("redis_backend_use_ssl"),
        login={
            "username": conf.get("redis_username"),
            "password": conf.get("redis_password"),
            "credential_provider": conf.get("redis_backend_credential_provider"),
        },
        written=Written(url="result_backend", options=options, strict=False),
    )


def choose(settings: Settings, broker: Configured, backend: Configured) -> Address:
    """
    Decide which server holds the locks.

    It is ``once_url``, else the broker's URL if it is Redis, else the result
    backend's. Of several brokers (failover) it is the first on Redis: all
    processes must agree on one.

    Raises:
        InvalidSettings: None of them is a single Redis, or its address can't be read.
    """
    ours = settings.transport_options
    for celerys in (broker, backend):
        url = _redis_of(celerys.url)
        if url and settings.url in {None, url}:
            written = celerys.written
            if ours is not None:
                written = replace(written, options=Written().options)
            return _read(url, _options(url, celerys, ours), written)
    if settings.url is not None:
        _check_replicas(settings)
        return _read(settings.url, ours or {}, Written())
    candidates = [*split_urls(broker.url), *split_urls(backend.url)]
    found = ", ".join(map(redact, candidates)) or "neither is set"
    raise InvalidSettings(OWNER, [_NO_REDIS.format(found=found)])


_NO_REDIS = (
    "no Redis to keep locks on: once_url is not set, and neither broker nor result backend "
    "is Redis ({found}). Set once_url='redis://host:6379/0'."
)


def _redis_of(urls: object) -> str | None:
    """Return the first Redis, or all sentinels or nodes if that is one."""
    redis = [url for url in split_urls(urls) if scheme(url) in SCHEMES]
    if redis and scheme(redis[0]) in SEVERAL:
        return ";".join(url for url in redis if scheme(url) == scheme(redis[0]))
    return redis[0] if redis else None


def _options(url: str, celerys: Configured, ours: Mapping[str, Any] | None) -> dict[str, Any]:
    """Gather what Celery is told about its server, and what we are told besides."""
    given = celerys.options
    heeded = {name: given[name] for name in _HEEDED if name in given} if ours is None else ours
    certificates = celerys.use_ssl if isinstance(celerys.use_ssl, Mapping) else {}
    options = {**certificates, **celerys.login, **heeded}
    said_nothing = "ssl_" not in url.partition("?")[2] and not asks_for_tls(options)
    if celerys.unverified and scheme(url) == "rediss" and said_nothing:
        options["ssl_cert_reqs"] = "none"
    return options


def _check_replicas(settings: Settings) -> None:
    if settings.wait_replicas and isinstance(settings.url, tuple):
        problem = (
            f"once_wait_replicas is {settings.wait_replicas}, but once_url lists independent "
            "masters: these confirm by majority, and a replica of theirs is no vote. Take it "
            "out."
        )
        raise InvalidSettings(OWNER, [problem])


def _read(url: str | tuple[str, ...], options: Mapping[str, Any], written: Written) -> Address:
    try:
        if isinstance(url, tuple):
            return read_masters(url, options, written)
        return read_address(url, options, written)
    except ProblemError as problem:
        raise InvalidSettings(OWNER, problem.args) from None
