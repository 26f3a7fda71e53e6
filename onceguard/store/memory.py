"""A lock server inside the process, for tests and eager mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from onceguard.rules.errors import InvalidSettings
from onceguard.rules.settings import OWNER
from onceguard.store.server import raise_unavailable

if TYPE_CHECKING:
    from onceguard.rules.address import Address
    from onceguard.store.scripts import Call
    from onceguard.store.server import Undo

_servers: dict[str, Any] = {}


class Memory:
    """
    fakeredis, which runs the same scripts.

    All stores of one URL in a process share it, ``memory://`` and ``memory://other`` do
    not. Another process, a forked child too, has a memory of its own: no lock holds
    between a publisher and a worker that are two processes.

    Args:
        address: ``memory://`` and a name, or none.

    Raises:
        InvalidSettings: fakeredis is not installed.
    """

    one_partition = False

    def __init__(self, address: Address) -> None:
        try:
            import fakeredis  # noqa: PLC0415 - an extra
            import lupa  # noqa: F401, PLC0415 - without it fakeredis knows no scripts
        except ImportError as error:
            problem = (
                f"once_url={address.url!r} needs fakeredis with Lua. Install "
                "'onceguard[memory]', or set once_url to a Redis server."
            )
            raise InvalidSettings(OWNER, [problem]) from error
        server = _servers.setdefault(address.url, fakeredis.FakeServer())
        self._client = fakeredis.FakeRedis(server=server)
        self._address = address

    def close(self) -> None:
        """Keep everything: the next store of this URL finds it."""
        self._client.close()

    def run(self, call: Call, undo: Undo | None = None) -> Any:  # noqa: ARG002 - answers at once
        """Run a script."""
        try:
            source = call.script.source.decode()
            return self._client.eval(source, len(call.keys), *call.keys, *call.args)
        except RedisError as error:
            raise_unavailable(self._address, call, error)


def forget(name: str = "") -> None:
    """Empty the memory of ``memory://<name>``, between two tests."""
    server = _servers.get(f"memory://{name}")
    if server is not None:
        import fakeredis  # noqa: PLC0415 - there is a server, so it is installed

        fakeredis.FakeRedis(server=server).flushall()
