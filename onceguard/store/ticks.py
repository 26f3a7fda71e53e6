"""Ticks of beat on Redis."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onceguard.rules.messages import PARTITIONS, partition
from onceguard.store import scripts
from onceguard.store.names import Names, held, ms, text
from onceguard.store.scripts import Call
from onceguard.store.tick_contract import LastTick, Ticked, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onceguard.store.scripts import Script
    from onceguard.store.server import Server, Undo
    from onceguard.store.tick_contract import Tick


_ANSWERED_FOR = 300_000
"""Milliseconds for which a tick that is asked again gets the same answer about its key."""


class RedisTicks:
    """
    What beat asks of Redis.

    A tick touches the partition of its entry and that of its key. Where a call may
    touch one only, these are two calls: the firing first, for whoever has that
    decides alone.

    Args:
        server: Where scripts run.
        prefix: Keeps the keys of apps apart that must not share locks.
    """

    def __init__(self, server: Server, *, prefix: str) -> None:
        self._server = server
        self._names = [Names(prefix, number) for number in range(PARTITIONS)]

    def close(self) -> None:
        """Close the connections of this process."""
        self._server.close()

    def _run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[str | int],
        undo: Undo | None = None,
    ) -> Any:
        return self._server.run(Call(script, keys, args), undo)

    def tick(self, tick: Tick) -> Ticked:
        if self._server.one_partition:
            return self._tick_apart(tick)
        names = self._names[partition(tick.message.key)]
        state = self._state(tick)
        keys = (state, names.lock(tick.message), names.next(tick.message), names.index)
        args = (*_slot_args(tick), *_message_args(tick), *_action_args(tick), _overdue(tick))
        return _ticked(self._run(scripts.TICK, keys, args))

    def _tick_apart(self, tick: Tick) -> Ticked:
        """Claim the firing, then the key; note at the firing what became of it."""
        state = self._state(tick)
        no_actions = ("", "", "", "", "")
        args = (*_slot_args(tick), *_message_args(tick), *no_actions, _overdue(tick))
        reply = self._run(scripts.TICK, (state,) * 4, args)
        firing = _ticked(reply)
        if firing.verdict is not Verdict.SEND or not tick.actions:
            return firing
        names = self._names[partition(tick.message.key)]
        keys = (
            names.tick(tick.message.message_id),
            names.lock(tick.message),
            names.next(tick.message),
            names.index,
        )
        args = (ms(firing.due_at), "", 1, _ANSWERED_FOR, 0, "", *_message_args(tick))
        call = _ticked(self._run(scripts.TICK, keys, (*args, *_action_args(tick))))
        known = replace(firing, verdict=call.verdict, holder=call.holder, waits=call.waits)
        known = replace(known, superseded=call.superseded, replaced=call.replaced)
        if call.verdict.sends:
            return replace(known, beside=call.after)
        if tick.slot.final:
            self._amend(tick, firing.after, firing.before)
            due, late = ms(firing.due_at), round(firing.late * 1000)
            last = _last(firing.before, due + late, due)
            return replace(known, after=firing.before, last=last)
        return self._count_skip(tick, known, [*map(_plain, reply)])

    def _count_skip(self, tick: Tick, answer: Ticked, reply: list[Any]) -> Ticked:
        skips = int(answer.before.split(" ")[2]) + 1 if answer.before else 1
        slot, claimed, _, message_id = answer.after.split(" ")
        after = f"{slot} {claimed} {skips} {message_id}"
        self._amend(tick, answer.after, f"{after} {json.dumps(reply)}")
        return replace(answer, after=after, last=replace(answer.last, skips=skips))

    def _amend(self, tick: Tick, old: str, new: str) -> bool:
        """Change the state of a tick's entry, if it is still what the tick left."""
        args = (old, new, ms(tick.remember_for), tick.message.message_id, "")
        return bool(self._run(scripts.UNSEND, (self._state(tick),) * 3, args))

    def _state(self, tick: Tick) -> str:
        return self._names[partition(tick.entry)].tick(tick.entry)

    def sent(
        self, tick: Tick, answer: Ticked, *, unique_for: float, superseded_for: float
    ) -> bool:
        message = tick.message
        names = self._names[partition(message.key)]
        others = map(names.record, answer.superseded)
        place = self._claim_place(tick, answer)
        keys = (place, names.index, names.record(message.message_id), *others)
        args = (
            message.message_id,
            message.task_id,
            ms(unique_for),
            "" if answer.waits else message.key,
            answer.replaced,
            ms(superseded_for),
            int(answer.verdict is Verdict.CANCEL),
        )
        return bool(self._run(scripts.SENT, keys, args))

    def unsend(self, tick: Tick, answer: Ticked) -> bool:
        message = tick.message
        names = self._names[partition(message.key)]
        place, index = self._claim_place(tick, answer), names.index
        claim = (message.message_id, "" if answer.waits else message.key)
        life = ms(tick.remember_for)
        if self._server.one_partition:
            keys = (names.tick(message.message_id), place, index)
            self._run(scripts.UNSEND, keys, (answer.beside, "", life, *claim))
            return self._amend(tick, answer.after, answer.before)
        keys = (self._state(tick), place, index)
        args = (answer.after, answer.before, life, *claim)
        return bool(self._run(scripts.UNSEND, keys, args))

    def _claim_place(self, tick: Tick, answer: Ticked) -> str:
        names = self._names[partition(tick.message.key)]
        return names.next(tick.message) if answer.waits else names.lock(tick.message)

    def last_ticks(
        self, entries: Sequence[str], *, first_seen: Mapping[str, float] | None = None
    ) -> list[LastTick | None]:
        together: defaultdict[int, list[str]] = defaultdict(list)
        for entry in entries:
            together[partition(entry)].append(entry)
        found: dict[str, LastTick] = {}
        lives = first_seen or {}
        for number, names in together.items():
            keys = [self._names[number].tick(entry) for entry in names]
            args = [ms(lives[entry]) if entry in lives else 0 for entry in names]
            now, *states = self._run(scripts.LAST_TICKS, keys, args)
            for entry, state in zip(names, states, strict=True):
                if state:
                    found[entry] = _last(text(state), int(now))
        return [found.get(entry) for entry in entries]


def _ticked(reply: Sequence[Any]) -> Ticked:
    verdict, before, after, now, due, holder, left, replaced, waits, superseded = reply
    after = text(after)
    now, due = int(now), int(due)
    return Ticked(
        verdict=Verdict(text(verdict)),
        last=_last(after, now, due),
        due_at=due / 1000,
        late=(now - due) / 1000,
        holder=held(holder, left) if holder else None,
        waits=bool(waits),
        superseded=tuple(text(each) for each in superseded),
        before=text(before),
        after=after,
        replaced=text(replaced),
    )


def _plain(item: Any) -> Any:
    return text(item) if isinstance(item, bytes) else item


def _slot_args(tick: Tick) -> tuple[str | int, ...]:
    life = ms(tick.remember_for)
    grace = "" if tick.grace is None else ms(tick.grace)
    slot = tick.slot
    at = "" if slot.at is None else ms(slot.at)
    spacing = ms(slot.spacing) if tick.claims_slot else ""
    return at, spacing, ms(slot.period), life, round(slot.interval * 1000), grace


def _message_args(tick: Tick) -> tuple[str | int, ...]:
    message = tick.message
    life = ms(tick.claim_for) if tick.claim_for else 0
    return message.message_id, message.task_id, life, message.key, tick.mine


def _action_args(tick: Tick) -> tuple[str, ...]:
    actions = tuple(each.value for each in tick.actions) or ("", "", "", "")
    return *actions, "1" if tick.slot.final else ""


def _overdue(tick: Tick) -> str | int:
    return "" if tick.overdue is None else ms(tick.overdue)


def _last(state: str, now: int, due: int = 0) -> LastTick:
    """Read an entry's state; without one the only tick is that which was due and skipped."""
    slot, claimed, skips, _ = (state or f"{due} {now} 1 -").split(" ")
    return LastTick(
        slot=int(slot) / 1000, age=max(0, now - int(claimed)) / 1000, skips=int(skips)
    )
