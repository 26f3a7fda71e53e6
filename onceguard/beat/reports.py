"""What beat says about ticks: on Celery's logger for beat, and as signals."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from onceguard.observe.events import Event, announce, log
from onceguard.rules.choices import OnBeatStoreUnavailable
from onceguard.rules.outcomes import Outcome
from onceguard.store.tick_contract import Verdict

if TYPE_CHECKING:
    from onceguard.beat.outgoing import Outgoing
    from onceguard.rules.errors import StoreUnavailable
    from onceguard.rules.holder import Holder
    from onceguard.store.tick_contract import Tick, Ticked

logger = logging.getLogger("celery.beat")

_OUTCOMES = {
    Verdict.MISSED: Outcome.MISSED,
    Verdict.SKIP: Outcome.OVERLAP_SKIPPED,
    Verdict.DROP: Outcome.BUFFER_DROPPED,
    Verdict.BUFFER: Outcome.BUFFERED,
    Verdict.REPLACE: Outcome.REPLACED,
    Verdict.CANCEL: Outcome.REPLACED,
}
_UNHEARD = (
    "; if that task has run already, its worker's app lacks onceguard "
    "(onceguard.setup, or a task with base=QueueOnce)"
)
_WHY = {
    Verdict.SKIP: "not sent",
    Verdict.DROP: "not sent, another tick waits already",
    Verdict.BUFFER: "this tick waits for its end",
    Verdict.REPLACE: "the tick that had not started is superseded by this one",
    Verdict.CANCEL: "it is told to stop, this tick waits for its end",
}


def decided(out: Outgoing, tick: Tick, answer: Ticked) -> None:
    """Say what became of a tick, unless it was just sent."""
    outcome = _OUTCOMES.get(answer.verdict)
    if outcome is None:
        if answer.verdict is Verdict.TAKEN:
            logger.debug("tick of %r was sent by another beat", out.name)
        return
    holder = answer.holder.holder if answer.holder else None
    event = _event(out, tick, outcome, holder=holder, detail=_detail(answer))
    log(event, logger, _level(outcome, answer.last.skips))
    announce(event)


def _level(outcome: Outcome, skips: int) -> int:
    """Warn at the second, fourth, eighth … tick in a row that was not sent."""
    repeated = skips > 1 and skips & (skips - 1) == 0
    return logging.WARNING if repeated or outcome is Outcome.MISSED else logging.INFO


def _detail(answer: Ticked) -> str:
    late = f"not sent: {answer.late:.1f} s late, more than misfire_grace_time allows"
    why = late if answer.verdict is Verdict.MISSED else _WHY[answer.verdict]
    skips = answer.last.skips
    if skips < 2:  # noqa: PLR2004 - a second one
        return why
    queued = answer.holder is not None and answer.holder.holder.state == "claim"
    hint = _UNHEARD if queued else ""
    return f"{why}; {skips} ticks in a row were not sent{hint}"


def unclaimed(out: Outgoing, tick: Tick, *, sent: bool) -> None:
    """Signal what became of a tick while the lock server is away; the log says it once."""
    detail = "sent unclaimed" if sent else "not sent"
    announce(_event(out, tick, Outcome.STORE_UNAVAILABLE, holder=None, detail=detail))


def away(error: StoreUnavailable, meanwhile: OnBeatStoreUnavailable) -> None:
    """Say that the lock server does not answer, and what that means."""
    sends = meanwhile is OnBeatStoreUnavailable.SEND
    consequence = (
        "ticks are sent unclaimed, by each beat that runs" if sends else "no ticks are sent"
    )
    logger.error(
        "The lock server %s does not answer (%s). Meanwhile %s: "
        "once_beat_on_store_unavailable is %r.",
        error.server, error.reason.rstrip("."), consequence, meanwhile.value,
    )  # fmt: skip


def back() -> None:
    """Say that the lock server answers again."""
    logger.warning("The lock server answers again: ticks are claimed.")


def _event(
    out: Outgoing, tick: Tick, outcome: Outcome, *, holder: Holder | None, detail: str
) -> Event:
    return Event(
        outcome=outcome,
        key=tick.message.key,
        task=out.task,
        task_id=tick.message.task_id,
        holder=holder,
        detail=detail,
        entry=out.name,
    )
