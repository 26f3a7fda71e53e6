"""What a driver's error means that comes of certificates, and the way out."""

from __future__ import annotations

import re

_THEIRS = r"certificate verify failed"
_OURS = r"alert (\w+ )?certificate|alert unknown ca"
_OURS_PERHAPS = r"alert handshake failure|writing to socket\. EOF occurred"

_ADVICE = {
    rf"{_THEIRS}.* is not valid for": (
        "its certificate must hold the host that it is asked at: write that one in once_url, "
        "on a Cluster announce it (cluster-announce-hostname), or set ssl_check_hostname=False "
        "in once_transport_options"
    ),
    _THEIRS: (
        "its certificate must be in force, and signed by an authority that is trusted here: "
        "name that one's file with ssl_ca_certs in once_transport_options"
    ),
    rf"{_OURS}|{_OURS_PERHAPS}": (
        "it may want a certificate of ours, signed by an authority that it trusts: name the "
        "files with ssl_certfile and ssl_keyfile in once_transport_options"
    ),
    r"connecting to [^/ ]+:\d+\. No such file": (
        "a file that ssl_ca_certs, ssl_certfile or ssl_keyfile names is not on this host"
    ),
}
"""OpenSSL's words, as redis-py hands them on; the first that fit count."""


def distrusted(said: str) -> bool:
    """Whether an error says that one side refuses the other's certificate."""
    return re.search(f"{_THEIRS}|{_OURS}", said) is not None


def advised(said: str) -> str:
    """Add to an error what is to be done, if it comes of certificates."""
    for words, advice in _ADVICE.items():
        if re.search(words, said):
            return f"{said.rstrip('.')} ({advice})"
    return said
