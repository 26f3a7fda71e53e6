"""Decide what becomes of a tick that is due, and see it through."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from celery.utils import uuid

from onceguard.beat import reports
from onceguard.beat.breaker import Breaker
from onceguard.beat.due import is_new, is_this, overdue, slot_due
from onceguard.beat.entries import Declarations
from onceguard.beat.outgoing import Outgoing, header_of
from onceguard.beat.rows import is_one_off
from onceguard.beat.schedules import remember_for, slot_of
from onceguard.rules.choices import OnBeatStoreUnavailable
from onceguard.rules.errors import StoreUnavailable
from onceguard.rules.lives import claim_life
from onceguard.rules.messages import new_message_id
from onceguard.rules.options import OverlapPolicy, Scope
from onceguard.rules.overlap import decisions
from onceguard.store.bound import guard_of, where
from onceguard.store.contract import Message
from onceguard.store.tick_contract import Tick, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onceguard.rules.options import Once
    from onceguard.rules.ticks import Slot
    from onceguard.store.tick_contract import LastTick, Ticked

_PAUSE = 5.0
_LONGEST_SENDING = 30.0
_SHORTEST_SENDING = 0.25
# Superseded messages stay in the broker's queue for as long as no worker takes them.
_WEEK = 7 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """
    A tick that is not sent.

    Attributes:
        last: The entry's last tick, as all beats know it; None if the store is away.
        counts: Whether it was sent, by another beat.
        slot: Which firing it was.
    """

    last: LastTick | None
    counts: bool
    slot: Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """
    A tick that is sent.

    Attributes:
        entry: What to send.
        once: The entry's options; None if it is unguarded.
        tick: What was asked of the store; None: nothing.
        answer: What it said; None: nothing.
    """

    entry: Outgoing
    once: Once | None = None
    tick: Tick | None = None
    answer: Ticked | None = None

    @property
    def task_id(self) -> str | None:
        """Of its message, if that is known before it is sent."""
        found: str | None = self.entry.options.get("task_id")
        return found


class Ticks:
    """
    Claims the ticks of one beat.

    Args:
        app: The app whose schedule it is.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._guard = guard_of(app)
        self._settings = self._guard.settings
        self._store = self._guard.new_store()
        self._declared = Declarations(app)
        self._breaker = Breaker(_PAUSE)
        self._identity = _identity(app)

    def decide(self, entry: Any, nth: int = 0) -> Passed | Sending:
        """
        Decide whether a due entry is sent, and claim what it needs.

        Args:
            entry: The scheduler's.
            nth: How often it has been sent already for this tick.
        """
        out = Outgoing(entry, self._app.tasks.get(entry.task))
        if not self._settings.enabled or self._app.conf.task_always_eager:
            return Sending(entry=out)
        once = self._declared.once_of(entry)
        if once is None:
            out.switch_off()
            if not self._settings.beat_ticks:
                return Sending(entry=out)
        else:
            _jitter(out, once)
        slot = slot_due(entry)
        tick = self._tick(out, once, slot, nth)
        if not self._breaker.closed(time.monotonic()):
            return self._unclaimed(out, once, tick)
        try:
            answer = self._store.tick(tick)
        except StoreUnavailable as error:
            self._say_away(error)
            return self._unclaimed(out, once, tick)
        self._say_if_back()
        reports.decided(out, tick, answer)
        if not answer.verdict.sends:
            return self._passed(out, tick, answer)
        _stamp(out, once, tick, answer.due_at, answer)
        return Sending(entry=out, once=once, tick=tick, answer=answer)

    def _tick(self, out: Outgoing, once: Once | None, slot: Slot, nth: int) -> Tick:
        entry = self._entry_id(out, nth)
        mine = f"{entry[:10]}~"
        guards = once is not None and once.overlap_policy is not OverlapPolicy.ALLOW_ALL
        key = self._declared.key_of(out, once, out.args, out.kwargs) if once else entry
        return Tick(
            entry=entry,
            slot=slot,
            claims_slot=self._settings.beat_ticks,
            remember_for=remember_for(slot),
            grace=once.misfire_grace_time if once else None,
            message=Message(
                key=key,
                message_id=mine + new_message_id(),
                task_id=out.options.get("task_id") or uuid(),
                own_lease=_own_lease(once, guards=guards),
                where=where(),
            ),
            claim_for=_sending_life(slot, once) if once and guards else 0.0,
            mine=mine,
            actions=decisions(once.overlap_policy) if once and guards else (),
            overdue=overdue(out, slot),
        )

    def _passed(self, out: Outgoing, tick: Tick, answer: Ticked) -> Passed:
        """
        Let a tick pass. It was a run where another beat has sent it.

        One without a next is tried again until its key is free; missed for good it
        counts as a run too, or its row would never be done.
        """
        taken = answer.verdict is Verdict.TAKEN
        sent = taken and is_this(out, tick.slot, answer.last) and not answer.last.skips
        over = tick.slot.final and (taken or answer.verdict is Verdict.MISSED)
        return Passed(last=answer.last, counts=sent or over, slot=tick.slot)

    def _unclaimed(self, out: Outgoing, once: Once | None, tick: Tick) -> Passed | Sending:
        send = self._settings.beat_on_store_unavailable is OnBeatStoreUnavailable.SEND
        reports.unclaimed(out, tick, sent=send)
        if not send:
            return Passed(last=None, counts=False, slot=tick.slot)
        _stamp(out, once, tick, tick.slot.at or time.time(), None)
        return Sending(entry=out)

    def sent(self, sending: Sending) -> None:
        """Let the claim live on, and supersede what the tick was sent instead of."""
        tick, answer, once = sending.tick, sending.answer, sending.once
        if tick is None or answer is None or once is None or not tick.claim_for:
            return
        out = sending.entry
        expires = getattr(out.task_object, "expires", None)
        now = datetime.now(timezone.utc)
        try:
            self._store.sent(
                tick,
                answer,
                unique_for=claim_life(once.unique_for, out.options, expires, now),
                superseded_for=max(_WEEK, once.completed_for or self._guard.completed_for),
            )
        except StoreUnavailable as error:
            self._say_away(error)

    def failed(self, sending: Sending) -> None:
        """Take back a tick that could not be sent, so that another beat may send it."""
        if sending.tick is None or sending.answer is None:
            return
        try:
            self._store.unsend(sending.tick, sending.answer)
        except StoreUnavailable as error:
            self._say_away(error)

    def last_ticks(self, entries: Sequence[Any]) -> list[LastTick | None]:
        """
        Return the last tick of each entry that any beat sent; None where unknown.

        Of intervals it is written down when they were first seen: their first tick
        comes even if no beat lives for so long.
        """
        asks = entries and self._settings.enabled and self._settings.beat_ticks
        if asks and self._breaker.closed(time.monotonic()):
            ids = [self._entry_id(each) for each in entries]
            lives = {
                name: remember_for(slot_of(each.schedule))
                for name, each in zip(ids, entries, strict=True)
                if is_new(each)
            }
            try:
                found = self._store.last_ticks(ids, first_seen=lives)
            except StoreUnavailable as error:
                self._say_away(error)
            else:
                self._say_if_back()
                return found
        return [None] * len(entries)

    def _entry_id(self, entry: Any, nth: int = 0) -> str:
        """
        Name an entry as in all beats of this app and in no other app.

        A one-off row that was made again under an old name is another entry. Others go
        by name alone: beats that keep a database each have other ids for the same entry.
        """
        row = entry.model.id if is_one_off(entry) else ""
        text = f"{self._identity}\0{entry.name}\0{row}{nth or ''}".encode()
        return blake2b(text, digest_size=12).hexdigest()

    def _say_away(self, error: StoreUnavailable) -> None:
        if self._breaker.failed(time.monotonic()):
            reports.away(error, self._settings.beat_on_store_unavailable)

    def _say_if_back(self) -> None:
        if self._breaker.answered():
            reports.back()


def _identity(app: Any) -> str:
    """Tell apart apps that share a lock server: by name, and by where their tasks go."""
    connection = app.connection_for_write()
    options = connection.transport_options or {}
    prefix = options.get("global_keyprefix") or ""
    queue = app.conf.task_default_queue
    place = str(connection.virtual_host or "").strip("/") or "0"  # redis://h is redis://h/0
    return f"{app.main}\0{place}\0{prefix}\0{queue}"


def _jitter(out: Outgoing, once: Once) -> None:
    if once.jitter and not out.options.get("eta"):
        soon = random.uniform(0, once.jitter)  # noqa: S311 - no secret
        out.options["countdown"] = (out.options.get("countdown") or 0) + soon


def _stamp(
    out: Outgoing, once: Once | None, tick: Tick, due_at: float, answer: Ticked | None
) -> None:
    message = tick.message
    out.options["task_id"] = message.task_id
    if once is not None:
        if answer is not None:
            message = replace(message, waits=answer.waits)
        patient = answer is not None and answer.verdict is not Verdict.SEND
        out.stamp(header_of(out, once, message, due_at, patient=patient))


def _own_lease(once: Once | None, *, guards: bool) -> bool:
    """Whether runs exclude only their own copies; ``allow_all`` leaves that to the scope."""
    if once is None or once.scope is Scope.WHILE_EXECUTING:
        return False
    return not guards or once.scope is Scope.UNTIL_EXECUTING


def _sending_life(slot: Slot, once: Once) -> float:
    """
    Seconds that a claim lives until its tick is sent.

    A beat that dies in between must not block its entry beyond the next tick.
    """
    return max(_SHORTEST_SENDING, min(_LONGEST_SENDING, slot.period / 2, once.unique_for))
