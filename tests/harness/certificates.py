"""A certificate authority to be thrown away, and servers that speak TLS with it."""

import subprocess
from pathlib import Path

from tests.harness.redis_server import RedisServer, free_port

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """
    A certificate authority in a directory.

    Attributes:
        ca: Its own certificate, a path.
        cert: That of a server or client on this machine, a path.
        key: The key that belongs to it, a path.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ca, self.cert, self.key = (
            directory / name for name in ("ca.crt", "server.crt", "server.key")
        )
        authority = directory / "ca.key"
        names = directory / "names"
        names.write_text(
            "subjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n"
        )
        request = directory / "server.csr"
        _openssl("req", "-x509", *_KEY, "-days", "1", "-subj", "/CN=onceguard tests",
                 "-addext", "keyUsage=critical,keyCertSign",  # Python 3.13 is strict
                 "-keyout", str(authority), "-out", str(self.ca))  # fmt: skip
        _openssl("req", *_KEY, "-subj", "/CN=localhost",
                 "-keyout", str(self.key), "-out", str(request))  # fmt: skip
        _openssl("x509", "-req", "-in", str(request), "-days", "1", "-CA", str(self.ca),
                 "-CAkey", str(authority), "-CAcreateserial", "-extfile", str(names),
                 "-out", str(self.cert))  # fmt: skip

    def options(self, port: int, *, clients: str = "no") -> tuple[str, ...]:
        """
        Options of a Redis server that speaks TLS.

        Args:
            port: Where it does.
            clients: "yes" lets in only who has a certificate of this authority.
        """
        files = ("--tls-cert-file", str(self.cert), "--tls-key-file", str(self.key))
        ours = ("--tls-ca-cert-file", str(self.ca), "--tls-auth-clients", clients)
        return ("--tls-port", str(port), *files, *ours)


class TlsServer(RedisServer):
    """A Redis server that speaks TLS on a port of its own, `tls_port`."""

    def __init__(self, authority: Authority, *options: str, clients: str = "no") -> None:
        self.tls_port = free_port()
        super().__init__(*authority.options(self.tls_port, clients=clients), *options)


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)
