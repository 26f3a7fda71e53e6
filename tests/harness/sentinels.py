"""A master, its replica, and the sentinels that watch them, quick to see a death."""

import contextlib
from itertools import chain
from typing import Any
from urllib.parse import quote

import redis

from tests.harness.redis_server import RedisServer, Server
from tests.harness.waiting import eventually

NAME = "main"
DOWN_AFTER = 500
"""Milliseconds without an answer after which a sentinel takes a server for dead."""

_QUICK = {
    "info-period": 150,
    "publish-period": 100,
    "ask-period": 100,
    "election-timeout": 1000,
    "min-link-reconnect-period": 200,
}
"""Milliseconds; at their defaults three sentinels need ten seconds to know each other."""

_CALM = {"publish-period": 2000}
"""Four of these must be longer than a failover: after that a sentinel undoes a promotion
that it has not heard of."""


class SentinelServer(Server):
    """One sentinel, in a directory of its own, where it keeps its configuration."""

    kind = "sentinel"

    def __init__(self, *lines: str) -> None:
        super().__init__()
        self._lines = lines

    def tune(self, periods: dict[str, int]) -> None:
        """Change how often it does things, where it can (Redis 7 and newer)."""
        with contextlib.suppress(redis.ResponseError):
            self.ask("SENTINEL", "DEBUG", *map(str, chain(*periods.items())))

    def _words(self) -> list[str]:
        path = self.directory / "sentinel.conf"
        mine = (f"port {self.port}", "bind 127.0.0.1", "protected-mode no", "logfile log")
        path.write_text("\n".join((*mine, f"dir {self.directory}", *self._lines)) + "\n")
        return [str(path), "--sentinel"]


class Sentinels:
    """
    Two servers, one of them the master, and three sentinels.

    Args:
        password: Of master and replica.
        sentinel_password: Of the sentinels.
    """

    def __init__(self, *, password: str = "", sentinel_password: str = "") -> None:
        self._password, self._sentinel_password = password, sentinel_password
        self.servers: list[RedisServer] = []
        self.sentinels: list[SentinelServer] = []

    @property
    def url(self) -> str:
        """As Celery's users write it, with the master's password."""
        login = f":{quote(self._password, safe='')}@" if self._password else ""
        return ";".join(f"sentinel://{login}127.0.0.1:{each.port}" for each in self.sentinels)

    @property
    def options(self) -> dict[str, Any]:
        """Transport options that go with the URL."""
        if not self._sentinel_password:
            return {"master_name": NAME}
        return {"master_name": NAME, "sentinel_kwargs": {"password": self._sentinel_password}}

    @property
    def master(self) -> RedisServer:
        """Whom the sentinels name at this moment."""
        _, port = self.sentinels[-1].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return next(server for server in self.servers if server.port == int(port))

    @property
    def replica(self) -> RedisServer:
        """The other one."""
        master = self.master
        return next(server for server in self.servers if server is not master)

    def start(self) -> "Sentinels":
        """Start everything and wait until all know each other."""
        self.servers = [RedisServer(*AT_ONCE).start() for _ in range(2)]
        for server in self.servers if self._password else ():
            server.require(self._password)
        master, replica = self.servers
        follow(replica, master)
        lines = self._lines(master.port)
        self.sentinels = [SentinelServer(*lines) for _ in range(3)]
        for sentinel in self.sentinels:
            sentinel.password = self._sentinel_password
            sentinel.start()
            sentinel.tune(_QUICK)
        eventually(self._complete, "the sentinels knew the replica and each other")
        for sentinel in self.sentinels:
            sentinel.tune(_CALM)
        return self

    def fail_over(self) -> RedisServer:
        """Kill the master and wait until the sentinels name another; returns that."""
        dead = self.master
        dead.stop()
        return self.await_other(dead)

    def await_other(self, than: RedisServer) -> RedisServer:
        """Wait until all sentinels name another master, which takes writes; returns that."""
        address = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)

        def moved() -> bool:
            ports = {int(sentinel.ask(*address)[1]) for sentinel in self.sentinels}
            return than.port not in ports and len(ports) == 1

        eventually(moved, "the sentinels named another master")
        other = next(server for server in self.servers if server is not than)
        with other.client() as client:
            eventually(lambda: client.role()[0] == "master", "it was promoted")
        return other

    def cut_off(self, replica: RedisServer) -> None:
        """Let nothing of what is written from now on reach the replica."""
        with self.master.client() as client:
            client.acl_deluser(_FOLLOWER)
        with replica.client() as client:
            eventually(
                lambda: client.info("replication")["master_link_status"] == "down",
                "the replica was cut off",
            )

    def close(self) -> None:
        """End all of them, hung ones too."""
        for sentinel in self.sentinels:
            sentinel.close()
        for server in self.servers:
            server.close()

    def _lines(self, port: int) -> list[str]:
        lines = [
            f"sentinel monitor {NAME} 127.0.0.1 {port} 2",
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER}",
            f"sentinel failover-timeout {NAME} 1000",
        ]
        if self._password:
            lines.append(f'sentinel auth-pass {NAME} "{self._password}"')
        if self._sentinel_password:
            lines.append(f'requirepass "{self._sentinel_password}"')
        return lines

    def _complete(self) -> bool:
        return all(
            (state["num-slaves"], state["num-other-sentinels"]) == ("1", "2")
            for state in (
                _pairs(each.ask("SENTINEL", "MASTER", NAME)) for each in self.sentinels
            )
        )


_FOLLOWER = "follower"
AT_ONCE = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


def follow(replica: RedisServer, master: RedisServer) -> None:
    """Make a server the replica of another, with a user of its own, and wait for the data."""
    with master.client() as client:
        client.config_set("repl-diskless-sync-delay", 0)
        client.execute_command(
            *f"ACL SETUSER {_FOLLOWER} on nopass +psync +replconf +ping".split()
        )
    with replica.client() as client:
        client.config_set("masteruser", _FOLLOWER)
        client.config_set("masterauth", "any")
        client.replicaof("127.0.0.1", str(master.port))
    eventually(lambda: in_step(master, replica), "the replica followed its master")
    with master.client() as client:
        eventually(lambda: client.wait(1, 100), "the replica had confirmed that")


def in_step(master: RedisServer, replica: RedisServer) -> bool:
    """Whether the replica has everything that the master has."""
    with master.client() as one, replica.client() as other:
        follows = other.info("replication")
        offset = one.info("replication")["master_repl_offset"]
        up = follows.get("master_link_status") == "up"
        return up and int(follows["slave_repl_offset"]) == int(offset)


def _pairs(state: Any) -> dict[str, str]:
    """redis-py makes a dict of this reply in some versions."""
    return state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True))
