"""The store on one Redis server."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from onceguard.rules.errors import StoreUnavailable
from onceguard.rules.holder import Holder
from onceguard.rules.messages import PARTITIONS, partition
from onceguard.rules.urls import redact
from onceguard.store import scripts
from onceguard.store.connect import Connections
from onceguard.store.contract import Answer, Held, Renewed, Started
from onceguard.store.scripts import Words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from onceguard.store.contract import Lease, Message, Successor
    from onceguard.store.scripts import Script

SCHEMA = "once1"

Undo = Callable[[], bytes]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


class _Names:
    """
    The Redis keys of one partition, which share a hash tag.

    A lock shares its slot with everything that its scripts touch, so that they
    are legal on a Cluster.
    """

    __slots__ = ("_head", "fence", "index")

    def __init__(self, prefix: str, number: int) -> None:
        self._head = f"{SCHEMA}:{{{prefix}:{number}}}:"
        self.index = f"{self._head}index"
        self.fence = f"{self._head}fence"

    def lock(self, message: Message) -> str:
        return f"{self._head}lock:{message.key}"

    def lease(self, message: Message) -> str:
        if message.own_lease:
            return f"{self._head}run:{message.task_id}"
        return f"{self._head}lock:{message.key}"

    def record(self, message_id: str) -> str:
        return f"{self._head}msg:{message_id}"

    def past(self, message: Message) -> str:
        return f"{self._head}past:{message.task_id if message.own_lease else message.key}"

    def of_end(self, message: Message) -> tuple[str, str, str, str]:
        """Name what every end of a run touches, in the order of the scripts."""
        record = self.record(message.message_id)
        return self.lock(message), self.lease(message), record, self.index


def _listed(message: Message) -> str:
    """Name a lease in the index. A claim is listed by its key, which holds no space."""
    return f"{message.key} {message.task_id if message.own_lease else 'lease'}"


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw


def _held(raw: bytes | str, milliseconds: int) -> Held:
    return Held(Holder.parse(_text(raw)), max(0, int(milliseconds)) / 1000)


class RedisStore:
    """
    Claims, leases and message records on one Redis server.

    Safe to share between threads and greenlets, and to inherit through a fork:
    a child makes connections of its own.

    Args:
        url: Where the server is, as Celery's users write it.
        prefix: Keeps the keys of apps apart that must not share locks.
        socket_timeout: Longest wait for a connection and for a reply, in
            seconds. No call takes much longer than this, whatever fails.
    """

    def __init__(self, url: str, *, prefix: str, socket_timeout: float) -> None:
        self._url = url
        self._names = [_Names(prefix, number) for number in range(PARTITIONS)]
        self._connections = Connections(url, socket_timeout=socket_timeout)

    def claim(self, message: Message, *, unique_for: float) -> Held | None:
        names = self._names[partition(message.key)]
        keys = (names.lock(message), names.index)
        args = (message.message_id, message.task_id, _ms(unique_for), message.key)
        reply = self._call(
            scripts.CLAIM,
            keys,
            args,
            lambda: scripts.UNCLAIM.load_and_call(
                Words(keys, (message.message_id, message.key))
            ),
        )
        return None if reply == 1 else _held(*reply)

    def unclaim(self, message: Message) -> None:
        names = self._names[partition(message.key)]
        keys = (names.lock(message), names.index)
        self._call(scripts.UNCLAIM, keys, (message.message_id, message.key))

    def start(  # noqa: PLR0913 - as the contract
        self,
        message: Message,
        *,
        nonce: str,
        parent_id: str | None,
        max_deliveries: int,
        lease_ttl: float,
        completed_for: float,
    ) -> Started:
        names = self._names[partition(message.key)]
        keys = (
            names.lock(message),
            names.lease(message),
            names.record(message.message_id),
            names.record(parent_id or message.message_id),
            names.index,
            names.fence,
            names.past(message),
        )
        args = (
            message.message_id,
            nonce,
            message.where,
            message.task_id,
            _ms(lease_ttl),
            _ms(completed_for),
            max_deliveries,
            message.key,
            _listed(message),
        )
        answer, record, left, generation, starts = self._call(
            scripts.START,
            keys,
            args,
            lambda: scripts.ABANDON.load_and_call(
                self._abandoned(message, nonce=nonce, claim_life=0, counted=False)
            ),
        )
        held = _held(record, left) if record else None
        return Started(Answer(_text(answer)), held, int(generation), int(starts))

    def renew(self, leases: Sequence[Lease]) -> list[tuple[Renewed, str]]:
        together: defaultdict[int, list[int]] = defaultdict(list)
        for place, lease in enumerate(leases):
            together[partition(lease.message.key)].append(place)
        answers: dict[int, tuple[Renewed, str]] = {}
        for number, places in together.items():
            names = self._names[number]
            keys: list[str] = [names.index, names.fence]
            args: list[str | int] = []
            for place in places:
                keys += self._renewed_keys(names, leases[place].message)
                args += self._renewed_args(leases[place])
            reply = [_text(item) for item in self._call(scripts.RENEW, keys, args)]
            for place, answer, record in zip(places, reply[::2], reply[1::2], strict=True):
                answers[place] = Renewed(answer), record
        return [answers[place] for place in range(len(leases))]

    @staticmethod
    def _renewed_keys(names: _Names, message: Message) -> tuple[str, str, str]:
        return names.lease(message), names.record(message.message_id), names.past(message)

    @staticmethod
    def _renewed_args(lease: Lease) -> tuple[str | int, ...]:
        return (
            lease.message.message_id,
            lease.nonce,
            _ms(lease.lease_ttl),
            _ms(lease.completed_for),
            lease.seen,
            _listed(lease.message),
            f"{lease.message.where} {lease.message.task_id}" if lease.unseen else "",
        )

    def finish(
        self,
        message: Message,
        *,
        nonce: str,
        completed_for: float,
        successor: Successor | None = None,
        skipped: bool = False,
    ) -> bool:
        names = self._names[partition(message.key)]
        after = successor.message_id if successor else message.message_id
        keys = (*names.of_end(message), names.record(after))
        args = (
            message.message_id,
            nonce,
            _ms(completed_for),
            message.key,
            _listed(message),
            successor.message_id if successor else "",
            message.task_id,
            _ms(successor.unique_for) if successor else 0,
            int(skipped),
        )
        return bool(self._call(scripts.FINISH, keys, args))

    def abandon(self, message: Message, *, nonce: str, unique_for: float) -> bool:
        life = _ms(unique_for) if unique_for else 0
        words = self._abandoned(message, nonce=nonce, claim_life=life, counted=True)
        return bool(self._run(scripts.ABANDON, words))

    def _abandoned(
        self, message: Message, *, nonce: str, claim_life: int, counted: bool
    ) -> Words:
        names = self._names[partition(message.key)]
        keys = names.of_end(message)
        args = (
            message.message_id,
            nonce,
            claim_life,
            message.task_id,
            message.key,
            _listed(message),
            int(counted),
        )
        return Words(keys, args)

    def shorten(
        self, message: Message, *, nonce: str, lease_ttl: float, completed_for: float
    ) -> bool:
        names = self._names[partition(message.key)]
        keys = names.of_end(message)
        args = (
            message.message_id,
            nonce,
            _ms(lease_ttl),
            _ms(completed_for),
            message.key,
        )
        return bool(self._call(scripts.SHORTEN, keys, args))

    def put_off(self, message: Message, *, generation: int, completed_for: float) -> int:
        names = self._names[partition(message.key)]
        keys = (names.record(message.message_id),)
        return int(self._call(scripts.PUT_OFF, keys, (generation, _ms(completed_for))))

    def drop(self, message: Message, *, completed_for: float) -> bool:
        names = self._names[partition(message.key)]
        keys = (names.lock(message), names.record(message.message_id), names.index)
        args = (message.message_id, _ms(completed_for), message.key)
        return bool(self._call(scripts.DROP, keys, args))

    def forget(self, messages: Iterable[Message], *, after: float) -> int:
        together: defaultdict[int, list[str]] = defaultdict(list)
        for message in messages:
            number = partition(message.key)
            together[number].append(self._names[number].record(message.message_id))
        life = (_ms(after),)
        return sum(int(self._call(scripts.FORGET, keys, life)) for keys in together.values())

    def holder(self, message: Message) -> Held | None:
        names = self._names[partition(message.key)]
        record, left = self._call(scripts.HOLDER, (names.lease(message),), ())
        return _held(record, left) if record else None

    def close(self) -> None:
        """Close the connections of this process."""
        self._connections.close()

    def _call(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[str | int],
        undo: Undo | None = None,
    ) -> Any:
        return self._run(script, Words(keys, args), undo)

    def _run(self, script: Script, words: Words, undo: Undo | None = None) -> Any:
        """
        Run a script, once more where the connection turned out to be dead.

        Sending again is safe: each script recognises its own earlier effect. A
        time-out is final, so that a hung server costs one time-out; *undo* then
        follows the script, lest the server carry it out when it wakes up.
        """
        try:
            try:
                return self._evaluate(script, words, undo)
            except RedisConnectionError:
                self._connections.close()  # the others are as old
                return self._evaluate(script, words, undo)
        except RedisError as error:
            raise StoreUnavailable(
                server=redact(self._url), operation=script.name, reason=str(error)
            ) from error

    def _evaluate(self, script: Script, words: Words, undo: Undo | None) -> Any:
        try:
            return self._connections.command(script.call(words), undo)
        except NoScriptError:
            return self._connections.command(script.load_and_call(words), undo)
