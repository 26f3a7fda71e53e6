"""The store on Redis."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from onceguard.rules.messages import partition
from onceguard.store import scripts
from onceguard.store.contract import Answer, Listed, Renewed, Started
from onceguard.store.names import held, listed, ms, text
from onceguard.store.scripts import Call
from onceguard.store.ticks import RedisTicks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from onceguard.store.contract import Held, Lease, Message, Successor
    from onceguard.store.names import Names


_PAGE = 500


class RedisStore(RedisTicks):
    """Claims, leases, message records and ticks on Redis."""

    def claim(self, message: Message, *, unique_for: float) -> Held | None:
        names = self._names[partition(message.key)]
        keys = (names.lock(message), names.index)
        args = (message.message_id, message.task_id, ms(unique_for), message.key)
        reply = self._run(
            scripts.CLAIM,
            keys,
            args,
            lambda: Call(scripts.UNCLAIM, keys, (message.message_id, message.key)),
        )
        return None if reply == 1 else held(*reply)

    def unclaim(self, message: Message) -> None:
        names = self._names[partition(message.key)]
        keys = (names.lock(message), names.index)
        self._run(scripts.UNCLAIM, keys, (message.message_id, message.key))

    def start(  # noqa: PLR0913 - as the contract
        self,
        message: Message,
        *,
        nonce: str,
        parent_id: str | None,
        max_deliveries: int,
        lease_ttl: float,
        completed_for: float,
        start_by: float | None = None,
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
            names.waits(message, names.lock(message)),
        )
        args = (
            message.message_id,
            nonce,
            message.where,
            message.task_id,
            ms(lease_ttl),
            ms(completed_for),
            max_deliveries,
            message.key,
            listed(message),
            "" if start_by is None else ms(start_by),
        )
        answer, record, left, generation, starts = self._run(
            scripts.START,
            keys,
            args,
            lambda: self._abandoned(message, nonce=nonce, claim_life=0, counted=False),
        )
        holder = held(record, left) if record else None
        return Started(Answer(text(answer)), holder, int(generation), int(starts))

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
            reply = [text(item) for item in self._run(scripts.RENEW, keys, args)]
            for place, answer, record in zip(places, reply[::2], reply[1::2], strict=True):
                answers[place] = Renewed(answer), record
        return [answers[place] for place in range(len(leases))]

    @staticmethod
    def _renewed_keys(names: Names, message: Message) -> tuple[str, str, str]:
        return names.lease(message), names.record(message.message_id), names.past(message)

    @staticmethod
    def _renewed_args(lease: Lease) -> tuple[str | int, ...]:
        return (
            lease.message.message_id,
            lease.nonce,
            ms(lease.lease_ttl),
            ms(lease.completed_for),
            lease.seen,
            listed(lease.message),
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
        waits = names.waits(message, names.lock(message))
        keys = (*names.of_end(message), names.record(after), waits)
        args = (
            message.message_id,
            nonce,
            ms(completed_for),
            message.key,
            listed(message),
            successor.message_id if successor else "",
            message.task_id,
            ms(successor.unique_for) if successor else 0,
            int(skipped),
        )
        return bool(self._run(scripts.FINISH, keys, args))

    def abandon(self, message: Message, *, nonce: str, unique_for: float) -> bool:
        life = ms(unique_for) if unique_for else 0
        call = self._abandoned(message, nonce=nonce, claim_life=life, counted=True)
        return bool(self._server.run(call))

    def _abandoned(
        self, message: Message, *, nonce: str, claim_life: int, counted: bool
    ) -> Call:
        names = self._names[partition(message.key)]
        keys = names.of_end(message)
        args = (
            message.message_id,
            nonce,
            claim_life,
            message.task_id,
            message.key,
            listed(message),
            int(counted),
        )
        return Call(scripts.ABANDON, keys, args)

    def shorten(
        self, message: Message, *, nonce: str, lease_ttl: float, completed_for: float
    ) -> bool:
        names = self._names[partition(message.key)]
        keys = (*names.of_end(message), names.waits(message, names.lock(message)))
        args = (
            message.message_id,
            nonce,
            ms(lease_ttl),
            ms(completed_for),
            message.key,
        )
        return bool(self._run(scripts.SHORTEN, keys, args))

    def put_off(
        self,
        message: Message,
        *,
        generation: int,
        completed_for: float,
        unique_for: float,
    ) -> int:
        names = self._names[partition(message.key)]
        record = names.record(message.message_id)
        keys = (record, names.waits(message, record))
        args = (generation, ms(completed_for), message.message_id, ms(unique_for))
        return int(self._run(scripts.PUT_OFF, keys, args))

    def drop(self, message: Message, *, completed_for: float) -> bool:
        names = self._names[partition(message.key)]
        lock = names.lock(message)
        record = names.record(message.message_id)
        keys = (lock, record, names.index, names.waits(message, lock))
        args = (message.message_id, ms(completed_for), message.key)
        return bool(self._run(scripts.DROP, keys, args))

    def forget(self, messages: Iterable[Message], *, after: float) -> int:
        together: defaultdict[int, list[str]] = defaultdict(list)
        for message in messages:
            number = partition(message.key)
            together[number].append(self._names[number].record(message.message_id))
        life = (ms(after),)
        return sum(int(self._run(scripts.FORGET, keys, life)) for keys in together.values())

    def holder(self, message: Message) -> Held | None:
        names = self._names[partition(message.key)]
        record, left = self._run(scripts.HOLDER, (names.lease(message),), ())
        return held(record, left) if record else None

    def holders(self) -> list[Listed]:
        found: dict[str, Listed] = {}
        for names in self._names:
            for listed_names in self._listed(names):
                places = {names.listed(name): name for name in listed_names}
                _, _, *rest = self._run(scripts.LOOK, list(places), ())
                for place, record, left in zip(places, rest[::2], rest[1::2], strict=True):
                    if record:
                        key = places[place].partition(" ")[0]
                        found[place] = Listed(key, held(record, left))
        return list(found.values())

    def _listed(self, names: Names) -> Iterator[list[str]]:
        """Give what the index of a partition lists, so many at a time."""
        start = 0
        while page := self._run(scripts.LISTED, (names.index,), (start, _PAGE)):
            yield [text(name) for name in page]
            start += len(page)
