"""Look at the lock server when a worker or beat starts: can it keep locks, and will it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from onceguard.rules.agreement import quorum
from onceguard.rules.errors import StoreUnavailable
from onceguard.rules.messages import PARTITIONS
from onceguard.rules.trust import advised, distrusted
from onceguard.store.cluster import Cluster
from onceguard.store.connect import Connections, pack_command
from onceguard.store.names import SCHEMA, Names, text
from onceguard.store.scripts import PROBE, Call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onceguard.rules.address import Address

OLDEST = (6, 2)
COMMANDS = (
    *("eval", "evalsha", "info", "role", "select", "time", "wait"),
    *("del", "exists", "get", "getex", "pexpire", "pttl", "set"),
    *("zadd", "zrangebyscore", "zrem", "zremrangebyscore", "zscore"),
)
"""What the lock server's user must be allowed."""

_LOCKED_OUT = (
    "NOAUTH",
    "WRONGPASS",
    "Authentication required",
    "invalid username-password pair",
    "HELLO must be called with the client already authenticated",
    "without any password configured",
)
_REFUSED = ("noperm", "the user executing the script", "unknown command")


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """
    What is wrong with a lock server; each a sentence that names it and the way out.

    Attributes:
        refusals: With these no lock can be kept.
        warnings: With these locks may be dropped, or it is not known.
        notes: What could not be looked at, and needs no action.
    """

    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_server(address: Address, *, prefix: str, socket_timeout: float) -> Findings:
    """
    Look at the lock server, or at all that belong to it.

    Args:
        address: Where it is.
        prefix: Of the keys, in which a key of no meaning is written and deleted.
        socket_timeout: In seconds. One server takes no longer than any other call,
            several as much each.

    Returns:
        What is wrong. A server that does not answer may be all right: a warning.
    """
    if address.memory:
        return Findings(warnings=(_MEMORY.format(server=address.shown),))
    if address.cluster:
        return _check_cluster(address, prefix=prefix, socket_timeout=socket_timeout)
    if address.masters:
        looks = [_Look(each, prefix, socket_timeout, turns=True) for each in address.masters]
        found = [look.judge() for look in looks]
        bad = sum(bool(each.refusals) for each in found)
        away = sum(look.away for look in looks)
        if len(found) - bad >= quorum(len(found)):
            kept = len(found) - bad - away >= quorum(len(found))
            found = [_softened(each, _MAJORITY if kept else _OTHERS) for each in found]
        return _joined([*found, _twins(looks)])
    return _Look(address, prefix, socket_timeout).judge()


def _joined(found: Sequence[Findings]) -> Findings:
    return Findings(
        refusals=tuple(said for each in found for said in each.refusals),
        warnings=tuple(said for each in found for said in each.warnings),
        notes=tuple(said for each in found for said in each.notes),
    )


def _softened(found: Findings, why: str) -> Findings:
    """Let what is wrong with one of several servers keep nobody from starting."""
    warned = tuple(f"{refusal} {why}" for refusal in found.refusals)
    return replace(found, refusals=(), warnings=(*warned, *found.warnings))


def _twins(looks: Sequence[_Look]) -> Findings:
    """Find a server that is listed under two names: it would have two votes."""
    known: dict[str, str] = {}
    refusals = []
    for look in looks:
        server, run_id = look.address.shown, look.facts.get("run_id", "")
        if run_id and run_id in known:
            refusals.append(_TWIN.format(server=server, other=known[run_id]))
        known.setdefault(run_id, server)
    return Findings(refusals=tuple(refusals))


def _check_cluster(address: Address, *, prefix: str, socket_timeout: float) -> Findings:
    """Try the scripts in each partition, and look at the nodes that were found thereby."""
    cluster = Cluster(address, socket_timeout=socket_timeout)
    found = []
    try:
        for number in range(PARTITIONS):
            cluster.run(Call(PROBE, (Names(prefix, number).probe,)))
    except StoreUnavailable as error:
        away = _AWAY.format(server=address.shown, error=error.reason.rstrip("."))
        found = [Findings(warnings=(away,))]
        if isinstance(error.__cause__, ResponseError):
            found = [_of_probe(address, error.__cause__)]
    finally:
        cluster.close()
    looks = [_Look(address.at(place), prefix, socket_timeout) for place in cluster.places]
    judged = [look.judge() for look in looks]
    if not found:  # all partitions keep locks: of a replica it is good to know in time
        judged = [
            found_here if look.mistaken else _softened(found_here, _PARTITIONS_WORK)
            for look, found_here in zip(looks, judged, strict=True)
        ]
    return _joined([*found, *judged])


class _Look:
    """What one server said."""

    def __init__(
        self, address: Address, prefix: str, socket_timeout: float, *, turns: bool = False
    ) -> None:
        self.address = address
        self._turns = turns
        self.facts: dict[str, str] = {}
        self._away = ""
        self._locked_out = False
        self._notes: tuple[str, ...] = ()
        self._probed: list[ResponseError] = []
        connections = Connections(address, socket_timeout=socket_timeout)
        probe = Call(PROBE, (Names(prefix, PARTITIONS - 1).probe,))
        asked = pack_command("INFO") + probe.packed() + probe.packed_with_source()
        try:
            info, *probed = connections.command(asked, replies=3)
        except RedisError as error:
            said = _said(address, error)
            refused = any(word in str(error) for word in _LOCKED_OUT)
            rule = _LOGIN if refused else _TRUST if distrusted(said) else _AWAY
            self._locked_out = rule is not _AWAY
            self._away = rule.format(server=address.shown, error=said)
            return
        finally:
            connections.close()
        if isinstance(info, ResponseError):
            unseen = _UNSEEN.format(server=address.shown, error=_said(address, info))
            self._notes = (unseen,)
        else:
            self.facts = _facts(text(info))
        errors = [each for each in probed if isinstance(each, ResponseError)]
        self._probed = [each for each in errors if not isinstance(each, NoScriptError)]

    @property
    def away(self) -> bool:
        """Whether it did not answer, and may be all right."""
        return bool(self._away) and not self._locked_out

    @property
    def mistaken(self) -> bool:
        """Whether it is in a Cluster and was not taken for a node, or the other way round."""
        mode = self.facts.get("redis_mode")
        return mode is not None and (mode == "cluster") != self.address.cluster

    def judge(self) -> Findings:
        """Say what is wrong."""
        if self._locked_out:
            return Findings(refusals=(self._away,))
        if self._away:
            return Findings(warnings=(self._away,))
        server, facts = self.address.shown, self.facts
        if facts.get("redis_mode") == "sentinel":
            return Findings(refusals=(_SENTINEL.format(server=server),))
        if self.mistaken:
            mistaken = _NO_CLUSTER if self.address.cluster else _CLUSTER
            return Findings(refusals=(mistaken.format(server=server),))
        refusals = _too_old(server, facts)
        if not self.address.cluster:  # its nodes say themselves where to go
            refusals += _replica(server, facts)
        found = Findings(
            refusals=tuple(refusals),
            warnings=tuple(_evicting(server, facts)),
            notes=self._notes,
        )
        if self._probed and not refusals and not self.address.cluster:
            return _joined([found, _of_probe(self.address, self._probed[0], turns=self._turns)])
        return found


def _of_probe(address: Address, error: ResponseError, *, turns: bool = False) -> Findings:
    """Say what it means that the server did not do what the scripts do."""
    server, said = address.shown, _said(address, error)
    if "READONLY" in said or isinstance(error, ReadOnlyError):
        return Findings(refusals=(_REPLICA.format(server=server, master="another server"),))
    if _not_allowed(error):
        told = _NO_SCRIPTS.format(server=server, error=said, rule=_rule(address, turns=turns))
        return Findings(refusals=(told,))
    return Findings(warnings=(_NO_WRITES.format(server=server, error=said),))


def _facts(info: str) -> dict[str, str]:
    lines = (line.partition(":") for line in info.splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}


def _too_old(server: str, facts: Mapping[str, str]) -> list[str]:
    version = facts.get("redis_version", "")  # Valkey has it, too: the Redis that it is like
    numbers = version.split(".")[:2]
    if len(numbers) < 2 or not all(map(str.isdecimal, numbers)):  # noqa: PLR2004 - major, minor
        return []
    if tuple(map(int, numbers)) >= OLDEST:
        return []
    return [_TOO_OLD.format(server=server, version=version)]


def _replica(server: str, facts: Mapping[str, str]) -> list[str]:
    if facts.get("role") != "slave":
        return []
    master = f"{facts.get('master_host')}:{facts.get('master_port')}"
    return [_REPLICA.format(server=server, master=master)]


def _evicting(server: str, facts: Mapping[str, str]) -> list[str]:
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return []
    limit = facts.get("maxmemory", "0")
    when = "once maxmemory is set, which it is not now"
    if limit != "0":
        when = f"at its limit of {facts.get('maxmemory_human', limit)}"
    return [_EVICTING.format(server=server, policy=policy, when=when)]


def _not_allowed(error: ResponseError) -> bool:
    said = str(error).lower()
    return isinstance(error, NoPermissionError) or any(word in said for word in _REFUSED)


def _rule(address: Address, *, turns: bool) -> str:
    allowed = " ".join(f"+{name}" for name in COMMANDS)
    keys = f"~{SCHEMA}:*{_TURNS if turns else ''}"
    return f"ACL SETUSER {address.login.get('username', 'default')} {allowed} {keys}"


def _said(address: Address, error: RedisError) -> str:
    return advised(address.hide(str(error))).rstrip(".")


_TURNS = f" ~redlock:{SCHEMA}:*"
"""What pottery's Redlock keeps, where several masters vote."""

_MAJORITY = "A majority of the others keeps locks without it meanwhile."
_OTHERS = "The others can keep locks without it, when those that are away are back."
_PARTITIONS_WORK = "All partitions keep locks at present, on other nodes."

_AWAY = (
    "the lock server {server} does not answer: {error}. It is asked again when it is needed; "
    "its version and its settings were not looked at."
)
_LOGIN = (
    "the lock server {server} does not let us in: {error}. Write its user and password in "
    "once_url, percent-encoded, or in once_transport_options."
)
_TRUST = "there is no trust between us and the lock server {server}: {error}."
_UNSEEN = (
    "the lock server {server} does not show its version, role and maxmemory-policy, which "
    "were not looked at: {error}"
)
_SENTINEL = (
    "the lock server {server} is a Sentinel, which keeps no locks. Write its URL with "
    "sentinel://, and once_transport_options={{'master_name': …}}."
)
_CLUSTER = (
    "the lock server {server} is a node of a Redis Cluster, which holds a part of the keys "
    "only. Write its URL with redis+cluster://host:port (or rediss+cluster://)."
)
_NO_CLUSTER = "the lock server {server} is in no Redis Cluster. Write its URL with redis://."
_TWIN = (
    "the lock server {server} is the same server as {other}, and would have two votes. List "
    "each of the independent masters once in once_url."
)
_MEMORY = (
    "the lock server {server} is this process's own memory: no lock holds against another "
    "process, a child of the pool included. Set once_url to a Redis server, except in tests."
)
_TOO_OLD = (
    "the lock server {server} is Redis {version}, but 6.2 or newer is needed (scripts use "
    "GETEX). Upgrade it, or set once_url to another server."
)
_REPLICA = (
    "the lock server {server} is a replica of {master}, but locks are taken on a master. Set "
    "once_url to the master or, with Sentinel, to sentinel://host:26379."
)
_EVICTING = (
    "the lock server {server} drops keys {when} (maxmemory-policy {policy}): a lock that is "
    "dropped lets its task run twice. Set 'maxmemory-policy noeviction' in redis.conf and with "
    "CONFIG SET, or set once_url to a server that is no cache."
)
_NO_SCRIPTS = (
    "the lock server {server} refuses the scripts that take and free locks: {error}. Allow "
    "its user what they need: {rule}"
)
_NO_WRITES = "the lock server {server} takes no locks at present: {error}"
