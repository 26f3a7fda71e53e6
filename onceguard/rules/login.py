"""How to be let in by a server: names, passwords and certificates, as redis-py takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onceguard.rules.checks import ProblemError, either

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOGIN = (
    "username",
    "password",
    "credential_provider",
    "client_name",
    "protocol",
    "socket_keepalive",
    "socket_keepalive_options",
    "ssl",
    "ssl_ca_certs",
    "ssl_ca_data",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_ciphers",
    "ssl_keyfile",
    "ssl_min_version",
    "ssl_password",
)
"""What may be said; redis-py's names, which are Celery's too."""

_VERIFY = ("none", "optional", "required")
_FALSE = {"", "0", "f", "false", "n", "no"}


def read_login(said: Mapping[str, Any], where: str) -> dict[str, Any]:
    """
    Convert what a URL, a dict or both said.

    Args:
        said: By the names in `LOGIN`; text where it stood in a URL.
        where: The setting that it stood in, for the error.

    Returns:
        Keyword arguments of redis-py's client.
    """
    login = {
        name: _CONVERTED[name](f"{name} in {where}", said[name])
        if name in _CONVERTED
        else said[name]
        for name in LOGIN
        if said.get(name) is not None
    }
    if not login.get("ssl"):
        login = {name: each for name, each in login.items() if not name.startswith("ssl")}
    if "credential_provider" in login:  # redis-py takes one or the other
        login = {name: login[name] for name in login if name not in {"username", "password"}}
    return login


def asks_for_tls(said: Mapping[str, Any]) -> bool:
    """Whether anything is said about certificates, which Celery takes for TLS."""
    return any(name.startswith("ssl_") for name in said)


def _verify(name: str, value: Any) -> str:
    """Read ``CERT_REQUIRED``, ``required`` or ``ssl.CERT_REQUIRED``."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(_VERIFY):
        return _VERIFY[value]
    word = str(value).lower().removeprefix("cert_")
    if word not in _VERIFY:
        raise ProblemError(f"{name} must be {either(_VERIFY)}, got {value!r}.")
    return word


def _switch(_: str, value: Any) -> bool:
    return value.lower() not in _FALSE if isinstance(value, str) else bool(value)


def _number(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ProblemError(f"{name} must be a whole number, got {value!r}.") from None


_CONVERTED: dict[str, Callable[[str, Any], Any]] = {
    "protocol": _number,
    "socket_keepalive": _switch,
    "ssl": _switch,
    "ssl_cert_reqs": _verify,
    "ssl_check_hostname": _switch,
    "ssl_min_version": _number,
}
