"""A Redis Cluster: each call goes to the node that has its partition's slot."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from onceguard.store.connect import Connections, pack_command
from onceguard.store.names import text
from onceguard.store.server import demoted, raise_unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from onceguard.rules.address import Address, Place
    from onceguard.store.replicas import Replicas
    from onceguard.store.scripts import Call
    from onceguard.store.server import Undo

_ASKING = pack_command("ASKING")
_SLOTS = pack_command("CLUSTER", "SLOTS")
_REDIRECTION = re.compile(r"(MOVED|ASK) \d+ (.*):(\d+)")
_PAUSE = 0.02
_known: dict[str, dict[Place, None]] = {}
"""The nodes of each Cluster in the order in which to ask them, for all stores of a process:
the renewal thread's may have asked nobody yet when the only node dies that was named."""

_HOPS = 5
"""Redirections at once; nodes that disagree for longer are asked now and then."""

_ANNOUNCE = (
    " (its nodes must say at which host and port we reach them: cluster-announce-ip and "
    "cluster-announce-port in redis.conf; with TLS 'tls-cluster yes')"
)


class Cluster:
    """
    The nodes of a Redis Cluster, found out as they redirect us.

    An app's keys live in as many slots as there are partitions, so the map is small:
    which node answered last for a slot. A node that is wrong says who is right
    (Redis Cluster specification, MOVED and ASK redirection).

    Args:
        address: Some of the nodes; the others need not be named.
        socket_timeout: Longest wait for a connection and for a reply, in seconds. A
            call that is sent on, or waits for a slot that is being moved, takes up to
            as much again.
        replicas: Who are asked to confirm each write; None: nobody.
    """

    one_partition = True

    def __init__(
        self, address: Address, *, socket_timeout: float, replicas: Replicas | None = None
    ) -> None:
        self._address = address
        self._timeout = socket_timeout
        self._replicas = replicas
        self._nodes: dict[Place, Connections] = {}
        self._owners: dict[int, Place] = {}
        self._known = _known.setdefault(address.url, dict.fromkeys(address.places))
        self._met: set[Place] = set()

    @property
    def places(self) -> list[Place]:
        """The nodes that are known, those first that answered last."""
        return list(self._known)

    def close(self) -> None:
        """Close the connections of this process."""
        for node in list(self._nodes.values()):
            node.close()

    def run(self, call: Call, undo: Undo | None = None) -> Any:
        """
        Run a script where its keys are, following redirections.

        A time-out is final, as for one server. While a slot is being moved, or has no
        master, the call is tried again until its time is over.
        """
        deadline = time.monotonic() + self._timeout
        try:
            return _Journey(self, call, undo).go(deadline)
        except RedisError as error:
            raise_unavailable(self._address, call, error)

    def send(self, place: Place, call: Call, packed: bytes, *, asking: bool, undo: Any) -> Any:
        """Send a packed call to one node."""
        node = self._node(place)
        if asking:
            _, reply = node.command(_ASKING + packed, undo, 2)
            if isinstance(reply, ResponseError):
                raise reply
            return reply
        if self._replicas is not None and call.script.writes:
            return self._replicas.following(node)(packed, undo)
        return node.command(packed, undo)

    def meet(self, place: Place) -> None:
        """Ask a node, once, who else is there: it may be the only one that was named."""
        if place in self._met:
            return
        self._met.add(place)
        with suppress(RedisError):  # not allowed to ask: others are found by redirection
            for _, _, *nodes in self._node(place).command(_SLOTS):
                for host, port, *_ in nodes:
                    self._known.setdefault((text(host or place[0]), int(port)))

    def owner(self, slot: int, *, but: set[Place]) -> Place:
        """Say whom to ask about a slot: its last known owner, else anyone not in *but*."""
        owner = self._owners.get(slot)
        if owner is not None and owner not in but:
            return owner
        known = list(self._known)
        return next((place for place in known if place not in but), known[0])

    def learn(self, slot: int, place: Place) -> None:
        """Remember who has a slot."""
        self._owners[slot] = place
        self._known.setdefault(place)

    def forget(self, place: Place) -> None:
        """Ask others next time: this node is dead, or hangs."""
        node = self._nodes.pop(place, None)
        if node is not None:
            node.close()
        self._met.discard(place)
        self._known.pop(place, None)
        self._known[place] = None
        self._owners = {slot: at for slot, at in self._owners.items() if at != place}

    def _node(self, place: Place) -> Connections:
        node = self._nodes.get(place)
        if node is None:
            made = Connections(self._address.at(place), socket_timeout=self._timeout)
            node = self._nodes.setdefault(place, made)
        return node


class _Journey:
    """The way of one call through the cluster."""

    def __init__(self, cluster: Cluster, call: Call, undo: Undo | None) -> None:
        self._cluster, self._call, self._undo = cluster, call, undo
        self._slot = key_slot(call.keys[0].encode())
        self._dead: set[Place] = set()
        self._with_source = self._asking = self._sent = False
        self._hops = 0
        self._met: RedisError | None = None
        self._place = cluster.owner(self._slot, but=self._dead)

    def go(self, deadline: float) -> Any:
        """Send the call on until a node has carried it out, until *deadline*."""
        while True:
            try:
                return self._try_once()
            except RedisTimeoutError as error:  # noqa: PERF203 - each try is another node
                self._cluster.forget(self._place)
                raise self._sent_to(error) from error
            except RedisError as error:
                if not self._goes_on_after(error) or time.monotonic() > deadline:
                    raise self._in_words(error) from error

    def _try_once(self) -> Any:
        packed = self._call.packed_with_source() if self._with_source else self._call.packed()
        take_back = None if self._undo is None else self._take_back(self._undo)
        reply = self._cluster.send(
            self._place, self._call, packed, asking=self._asking, undo=take_back
        )
        if not self._asking:
            self._cluster.learn(self._slot, self._place)
        self._cluster.meet(self._place)
        return reply

    def _goes_on_after(self, error: RedisError) -> bool:
        """Choose where to send the call next; False: nowhere helps."""
        redirection = _redirection(error)
        self._asking = redirection is not None and not redirection.for_good
        if isinstance(error, NoScriptError):
            self._with_source = True
        elif redirection is not None:
            self._place = redirection.host or self._place[0], redirection.port
            self._sent = True
            self._hops += 1
            if self._hops > _HOPS:
                time.sleep(_PAUSE)
            if not self._asking:
                self._cluster.learn(self._slot, self._place)
        elif isinstance(error, RedisConnectionError) or _down(error):
            self._met = error
            self._try_elsewhere()
        elif _says(error, TryAgainError, "TRYAGAIN"):
            time.sleep(_PAUSE)
            self._place = self._cluster.owner(self._slot, but=self._dead)
        else:
            return False
        return True

    def _in_words(self, error: RedisError) -> RedisError:
        """Say why being sent on led nowhere."""
        if _redirection(error) is None or self._met is None:
            return error
        return self._sent_to(self._met)

    def _sent_to(self, error: RedisError) -> RedisError:
        """Say where it happened, if we were sent there."""
        if not self._sent:
            return error
        (host, port), said = self._place, str(error)
        advice = _ANNOUNCE if said.startswith("Timeout connecting") else ""
        return RedisError(f"the nodes say that its keys are at {host}:{port}: {said}{advice}")

    def _try_elsewhere(self) -> None:
        self._cluster.forget(self._place)
        self._dead.add(self._place)
        self._sent = False
        self._place = self._cluster.owner(self._slot, but=self._dead)
        if self._place in self._dead:  # all are, or do not know better yet
            self._dead.clear()
            time.sleep(_PAUSE)

    def _take_back(self, undo: Undo) -> Callable[[], bytes]:
        head = _ASKING if self._asking else b""
        return lambda: head + undo().packed_with_source()


class _Redirection(NamedTuple):
    """Where a node sends us: for good (MOVED), or for this time (ASK)."""

    for_good: bool
    host: str
    port: int


def _redirection(error: RedisError) -> _Redirection | None:
    """Read a redirection; older redis-py leaves it in the server's words."""
    if isinstance(error, AskError):
        return _Redirection(isinstance(error, MovedError), error.host, int(error.port))
    found = _REDIRECTION.fullmatch(str(error)) if isinstance(error, ResponseError) else None
    return _Redirection(found[1] == "MOVED", found[2], int(found[3])) if found else None


def _down(error: RedisError) -> bool:
    """Whether the slot has no master now, or the node is not its master any more."""
    if _says(error, ClusterDownError, "CLUSTERDOWN"):
        return True
    return isinstance(error, ResponseError) and demoted(error)


def _says(error: RedisError, kind: type[RedisError], word: str) -> bool:
    """Whether an error is of this type or, from older redis-py, begins with this word."""
    if isinstance(error, kind):
        return True
    return isinstance(error, ResponseError) and str(error).startswith(word)
