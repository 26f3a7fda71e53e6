"""A Redis Cluster of our own: slots are moved, nodes killed and hung as a test likes."""

from __future__ import annotations

import random
import socket
from typing import TYPE_CHECKING, Any

import redis

from tests.harness.redis_server import RedisServer
from tests.harness.sentinels import AT_ONCE, in_step
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from tests.harness.certificates import Authority

SLOTS = 16384
NODE_TIMEOUT = 1500
"""Milliseconds without an answer after which nodes take one of them for dead."""

_BUS = 10000
"""The nodes talk among themselves on the port that is so much higher."""

_PORTS = range(11000, 32000 - _BUS)
"""Below those that the kernel gives to outgoing connections, the bus's too."""


class ClusterNode(RedisServer):
    """
    One node; it keeps its view of the cluster in its directory.

    Args:
        options: Words for its command line.
        authority: Who vouches for it; then it speaks TLS only, with the other nodes too,
            and lets in whom that authority vouches for.
    """

    kind = "node"

    def __init__(self, *options: str, authority: Authority | None = None) -> None:
        self._authority = authority
        super().__init__(
            *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
            *("--cluster-node-timeout", str(NODE_TIMEOUT)),
            *("--cluster-replica-validity-factor", "0"),  # take over, however old the data
            *AT_ONCE,
            *options,
        )
        self._id = ""

    @property
    def id(self) -> str:
        """How the nodes name it, for ever."""
        self._id = self._id or str(self.ask("CLUSTER", "MYID"))
        return self._id

    @property
    def place(self) -> tuple[str, int]:
        """Host and port, as the nodes tell them to clients."""
        return "127.0.0.1", self.port

    def state(self) -> dict[str, str]:
        """What it thinks of the cluster: CLUSTER INFO."""
        told = str(self.ask("CLUSTER", "INFO"))
        return dict(line.split(":", 1) for line in told.splitlines() if ":" in line)

    def keys_in(self, slot: int, most: int = 1000) -> list[str]:
        """Names of keys that it has in a slot."""
        return [str(key) for key in self.ask("CLUSTER", "GETKEYSINSLOT", slot, most)]

    def _words(self) -> list[str]:
        if self._authority is None:
            return super()._words()
        tls = ("--port", "0", "--tls-cluster", "yes", "--tls-replication", "yes")
        return [*super()._words(), *tls, *self._authority.options(self.port, clients="yes")]

    def _choose_port(self) -> int:
        for _ in range(100):
            port = random.choice(_PORTS)
            if _is_free(port) and _is_free(port + _BUS):
                return port
        message = "There are no two free ports for a cluster's node."
        raise RuntimeError(message)


class Cluster:
    """
    Masters that share the slots evenly, each with as many replicas.

    Args:
        masters: How many; three are the least that can see one of them dead.
        replicas: How many for each master.
        binary: Path of another program than the usual redis-server.
        options: Words for the command line of each node.
        authority: Who vouches for the nodes, which then speak TLS.
    """

    def __init__(
        self,
        masters: int = 3,
        *,
        replicas: int = 0,
        binary: str = "",
        options: Sequence[str] = (),
        authority: Authority | None = None,
    ) -> None:
        self._authority = authority
        self.nodes = [
            ClusterNode(*options, authority=authority) for _ in range(masters * (1 + replicas))
        ]
        self._masters = masters
        for node in self.nodes:
            node.binary = binary

    @property
    def urls(self) -> list[str]:
        """One for each node."""
        scheme = "rediss+cluster" if self._authority else "redis+cluster"
        return [f"{scheme}://127.0.0.1:{node.port}" for node in self.nodes]

    @property
    def url(self) -> str:
        """All nodes, as an app's settings name them."""
        return ";".join(self.urls)

    def start(self) -> Self:
        """Start all nodes, join them, and wait until every one of them says that it is up."""
        for node in self.nodes:
            node.start()
        masters, replicas = self.nodes[: self._masters], self.nodes[self._masters :]
        for number, node in enumerate(masters):
            mine = range(SLOTS * number // self._masters, SLOTS * (number + 1) // self._masters)
            node.ask("CLUSTER", "ADDSLOTS", *mine)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", *node.place)
        eventually(self._all_met, "all nodes knew each other")
        for number, node in enumerate(replicas):
            _let_follow(node, masters[number % self._masters])
        self.await_up()
        return self

    def close(self) -> None:
        """End all nodes, hung ones too."""
        for node in self.nodes:
            node.close()

    def client(self) -> redis.RedisCluster:
        """A new client of the test's own, which follows redirections, without TLS."""
        host, port = self._alive()[0].place
        return redis.RedisCluster(
            host=host,
            port=port,
            password=self.nodes[0].password or None,
            decode_responses=True,
            socket_timeout=5,
        )

    def flush(self) -> None:
        """Forget all data; slots stay where they are."""
        for node in self._alive():
            if node.ask("ROLE")[0] == "master":
                node.ask("FLUSHALL")

    def node_of(self, slot: int) -> ClusterNode:
        """The master that has a slot, as the first living node sees it."""
        for first, last, master, *_ in self._alive()[0].ask("CLUSTER", "SLOTS"):
            if int(first) <= slot <= int(last):
                return next(node for node in self.nodes if node.port == int(master[1]))
        message = f"No node has slot {slot}."
        raise LookupError(message)

    def replica_of(self, master: ClusterNode) -> ClusterNode:
        """A living replica of a master."""
        for node in self._alive():
            role: list[Any] = node.ask("ROLE")
            if role[0] == "slave" and int(role[2]) == master.port:
                return node
        message = "That master has no replica."
        raise LookupError(message)

    def another(self, than: ClusterNode) -> ClusterNode:
        """A living master that is not this one."""
        masters = {self.node_of(slot).port: slot for slot in self._some_slots()}
        port = next(port for port in masters if port != than.port)
        return next(node for node in self.nodes if node.port == port)

    def move_slot(self, slot: int, to: ClusterNode, *, stay_open: bool = False) -> ClusterNode:
        """
        Move a slot with its keys, as resharding does; returns who had it.

        Args:
            slot: Which.
            to: The master that gets it.
            stay_open: Stop when all keys are there and the slot is still the old one's:
                that answers ASK. Go on with `close_slot`.
        """
        owner = self.open_slot(slot, to)
        self.move_keys(slot, owner, to)
        if not stay_open:
            self.close_slot(slot, to)
        return owner

    def open_slot(self, slot: int, to: ClusterNode) -> ClusterNode:
        """Begin to move a slot; what is not there any more is asked for at the other node."""
        owner = self.node_of(slot)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", owner.id)
        owner.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        return owner

    def move_keys(
        self,
        slot: int,
        owner: ClusterNode,
        to: ClusterNode,
        *,
        only: Sequence[str] | None = None,
    ) -> list[str]:
        """
        Move keys of an open slot; where some are moved, calls for several answer TRYAGAIN.

        Args:
            slot: Which.
            owner: Who has it.
            to: Who gets it.
            only: Names of the keys; all of them if left out.

        Returns:
            What was moved.
        """
        moved: list[str] = []
        while keys := (owner.keys_in(slot) if only is None else list(only)):
            words: tuple[str | int, ...] = (*to.place, "", 0, 5000, "KEYS", *keys)
            owner.ask("MIGRATE", *words)
            moved += keys
            only = only and []
        return moved

    def close_slot(self, slot: int, to: ClusterNode) -> None:
        """End a move: tell every master who has the slot now, the new one first."""
        to.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        for node in self._alive():
            if node is not to and node.ask("ROLE")[0] == "master":
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        eventually(
            lambda: all(self._sees(node, slot, to) for node in self._alive()),
            "all nodes knew who has the slot",
        )

    def cancel_move(self, slot: int, to: ClusterNode) -> None:
        """Give up a move of which nothing was moved yet."""
        for node in (to, self.node_of(slot)):
            node.ask("CLUSTER", "SETSLOT", slot, "STABLE")

    def kill(self, node: ClusterNode) -> None:
        """End a node, as a power cut would."""
        node.stop()

    def pause(self, node: ClusterNode) -> None:
        """Let a node hang."""
        node.pause()

    def resume(self, node: ClusterNode) -> None:
        """Let a hung node go on; it becomes the replica of whoever took its place."""
        node.resume()

    def await_failover(self, of: ClusterNode, slot: int) -> ClusterNode:
        """
        Wait until another node has a slot and takes writes; returns that.

        Args:
            of: Who had it, and is dead or hangs.
            slot: One of its slots.
        """
        others = [node for node in self._alive() if node is not of]

        def taken_over() -> ClusterNode | None:
            found = {_owner_port(node, slot) for node in others}
            ports = [node for node in others if found == {node.port}]
            return ports[0] if ports and all(map(_is_up, others)) else None

        heir = eventually(taken_over, "another node took over")
        assert heir is not None
        return heir

    def await_up(self) -> None:
        """Wait until every living node says that the cluster is up."""
        eventually(lambda: all(map(_is_up, self._alive())), "the cluster was up")

    def _alive(self) -> list[ClusterNode]:
        return [node for node in self.nodes if node.answers]

    def _all_met(self) -> bool:
        count = str(len(self.nodes))
        return all(
            node.state()["cluster_known_nodes"] == count
            and "handshake" not in str(node.ask("CLUSTER", "NODES"))
            for node in self.nodes
        )

    def _some_slots(self) -> list[int]:
        ranges = self._alive()[0].ask("CLUSTER", "SLOTS")
        return [int(first) for first, *_ in ranges]

    @staticmethod
    def _sees(node: ClusterNode, slot: int, owner: ClusterNode) -> bool:
        return _owner_port(node, slot) == owner.port


def _owner_port(node: ClusterNode, slot: int) -> int | None:
    """The port of the master that has a slot, as a node sees it."""
    for first, last, master, *_ in node.ask("CLUSTER", "SLOTS"):
        if int(first) <= slot <= int(last):
            return int(master[1])
    return None


def _is_up(node: ClusterNode) -> bool:
    return node.state()["cluster_state"] == "ok"


def _let_follow(replica: ClusterNode, master: ClusterNode) -> None:
    """Make a node the replica of another, and wait for the data."""

    def accepted() -> bool:
        try:
            replica.ask("CLUSTER", "REPLICATE", master.id)
        except redis.ResponseError:  # it has not heard of that master yet
            return False
        return True

    eventually(accepted, "a replica took its master")
    eventually(lambda: in_step(master, replica), "a replica had its master's data")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
