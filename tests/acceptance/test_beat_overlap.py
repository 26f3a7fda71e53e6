"""What each overlap policy does with a tick whose predecessor has not ended."""

import re
from functools import partial
from typing import Any, ClassVar

import pytest

from tests.harness.beat import Beat
from tests.harness.ledger import Line, Run
from tests.harness.schedule import Entry
from tests.harness.schedulers import DATABASES, Database
from tests.harness.site import SLACK, Site, redis_site
from tests.harness.waiting import eventually

EVERY = 0.3
"""Seconds between two ticks: far less than a held run takes."""

POLICIES = ["skip", "buffer_one", "keep_latest", "cancel_other"]


def entry(name: str, once: Any = True, **more: Any) -> Entry:
    """Make a tick whose run takes until the test opens the gate."""
    return {"task": "held", "schedule": EVERY, "args": [name], "once": once, **more}


def await_signals(site: Site, signal: str, times: int) -> None:
    """Wait until the library said so that often."""
    said = partial(site.ledger.lines, signal)
    eventually(lambda: len(said()) >= times, f"{signal} was sent {times} times")


class Policy:
    """What a test says about an entry: while its first run goes on, and when all is over."""

    once: ClassVar[Any] = True
    task = "held"
    every = EVERY

    def __init__(self) -> None:
        self.name = type(self).__name__

    def entry(self) -> Entry:
        """As it stands in beat's schedule."""
        args = [self.name, *([{"lazy": True}] if self.task == "labelled" else [])]
        more = {"task": self.task, "schedule": self.every, "args": args}
        return entry(self.name, self.once, **more)

    def await_met(self, site: Site, beat: Beat) -> None:
        """Wait until enough ticks met the first run, which the closed gate holds."""

    def check(self, site: Site, runs: list[Run], sent: list[str]) -> None:
        """Check which ticks survived: *sent* has the ids of their messages."""


class Skip(Policy):
    """The run survives; of the ticks that come meanwhile, none does, until it has ended."""

    def await_met(self, site: Site, beat: Beat) -> None:
        """With beat alive, the next tick after the end is sent."""
        beat.await_due(self.name, 4)
        assert len(beat.sent(self.name)) == 1
        site.open_gate(self.name)
        first = site.ledger.await_end(self.name)
        second = site.ledger.await_begin(self.name, 2)
        assert (second.start.at - first.end) / 1e9 < EVERY + SLACK

    def check(self, site: Site, runs: list[Run], sent: list[str]) -> None:
        """One run for each message."""
        assert not site.ledger.overlaps(self.name)
        assert len(runs) == len(sent)


class SkipIsNotMadeUpFor(Policy):
    """With beat gone, nothing runs after the run that ticks were skipped for."""

    def await_met(self, site: Site, beat: Beat) -> None:
        """Two were skipped."""
        del site
        beat.await_due(self.name, 3)

    def check(self, site: Site, runs: list[Run], sent: list[str]) -> None:
        """It was the only one."""
        del site
        assert len(runs) == len(sent) == 1


class BufferOne(Policy):
    """The first tick that met the run survives, the later ones do not."""

    once: ClassVar[Any] = {"overlap_policy": "buffer_one"}

    def await_met(self, site: Site, beat: Beat) -> None:
        """One was buffered, and two were dropped."""
        beat.await_due(self.name, 5)
        await_signals(site, "once_buffer_dropped", 2)

    def check(self, site: Site, runs: list[Run], sent: list[str]) -> None:
        """It runs once more after the end."""
        assert [run.task_id for run in runs] == sent
        assert len(runs) == 2
        assert not site.ledger.overlaps(self.name)
        assert len(said_of(site, "once_buffered", sent)) == 1


class KeepLatest(Policy):
    """Of the ticks that met the run the last one survives: its arguments are computed late."""

    once: ClassVar[Any] = {"overlap_policy": "keep_latest"}
    task = "labelled"

    def await_met(self, site: Site, beat: Beat) -> None:
        """Three were replaced."""
        beat.await_due(self.name, 6)
        replaced = partial(site.ledger.lines, "once_replaced", self.task)
        eventually(lambda: len(replaced()) >= 3, "three were replaced")

    def check(self, site: Site, runs: list[Run], sent: list[str]) -> None:
        """It runs once more, with the newest arguments."""
        assert [run.task_id for run in runs] == [sent[0], sent[-1]]
        labels = site.ledger.lines("label", self.name)
        first, second = [int(line.detail) for line in labels]
        assert second - first > 2 * EVERY * 1e9
        assert not site.ledger.overlaps(self.name)
        assert len(said_of(site, "once_buffered", sent)) == 1


class CancelOther(Policy):
    """The newest tick survives: the run before it hears of it, ends, and makes room."""

    once: ClassVar[Any] = {"overlap_policy": "cancel_other"}
    task = "obedient"
    every = 1.0

    def await_met(self, site: Site, beat: Beat) -> None:
        """Two runs have ended, although the gate is closed."""
        del beat
        site.ledger.await_begin(self.name, 3)

    def check(self, site: Site, runs: list[Run], sent: list[str]) -> None:
        """They were told."""
        assert [run.how for run in runs[:2]] == ["Superseded", "Superseded"]
        assert {run.task_id for run in runs} <= set(sent)
        assert not site.ledger.overlaps(self.name)


class CancelOtherWithoutAsking(Policy):
    """Nobody is killed: a run that does not ask goes on, and the newest tick runs after it."""

    once: ClassVar[Any] = {"overlap_policy": "cancel_other"}

    def await_met(self, site: Site, beat: Beat) -> None:
        """Three ticks met it."""
        beat.await_sent(4, self.name)
        assert not site.ledger.runs(self.name)[0].finished

    def check(self, site: Site, runs: list[Run], sent: list[str]) -> None:
        """Both came to their own end."""
        assert [run.how for run in runs] == ["ok", "ok"]
        assert [run.task_id for run in runs] == [sent[0], sent[-1]]
        assert not site.ledger.overlaps(self.name)


class AllowAll(Policy):
    """All survive; each message is still run once, when it is delivered twice too."""

    once: ClassVar[Any] = {"overlap_policy": "allow_all"}
    every = 1.0

    def await_met(self, site: Site, beat: Beat) -> None:
        """Two run at once, and the first is delivered again."""
        del beat
        first = site.ledger.await_begin(self.name)
        site.ledger.await_begin(self.name, 2)
        site.broker.deliver(site.broker.capture(first.task_id))
        await_signals(site, "once_duplicate_delivery", 1)

    def check(self, site: Site, runs: list[Run], sent: list[str]) -> None:
        """One run for each message, at the same time."""
        assert sorted(run.task_id for run in runs) == sorted(sent)
        assert site.ledger.overlaps(self.name)


class SkipsAreSaid(Policy):
    """
    On beat's logger with the holder: INFO for each, and a WARNING each time it has doubled.

    A job that is always skipped is a job that never runs.
    """

    every = 0.2

    def await_met(self, site: Site, beat: Beat) -> None:
        """Nine lines."""
        holder = site.ledger.await_begin(self.name).task_id
        eventually(lambda: len(skips(beat, holder)) >= 9, "nine lines were written")
        said = skips(beat, holder)[:9]
        for level, line in said:
            assert "held" in line, level
        warned = [number for number, (level, _) in enumerate(said, 1) if level == "WARNING"]
        assert warned == [2, 4, 8]
        assert re.search(r"\b4\b", said[3][1].partition(": ")[2])
        events = site.ledger.lines("once_overlap_skipped", "held")
        assert any(holder in event.detail for event in events)


def said_of(site: Site, signal: str, ids: list[str]) -> list[Line]:
    """Signals about these messages."""
    return [line for line in site.ledger.lines(signal) if line.task_id in ids]


def skips(beat: Beat, holder: str) -> list[tuple[str, str]]:
    """Lines about ticks that were skipped for that run in beat's log, with their levels."""
    lines = re.findall(
        r"^\[[^]]*: (\w+)/[^]]*\] (.*overlap_skipped.*)$", beat.log(), re.MULTILINE
    )
    return [(level, text) for level, text in lines if holder in text]


ALL: list[type[Policy]] = [
    Skip, SkipIsNotMadeUpFor, BufferOne, KeepLatest, CancelOther, CancelOtherWithoutAsking,
    AllowAll, SkipsAreSaid,
]  # fmt: skip


@pytest.mark.parametrize(
    ("base", "kinds"), [("QueueOnce", ALL), ("Task", [BufferOne, CancelOther])]
)
def test_each_policy_decides_which_ticks_survive_that_meet_a_run(
    redis_binary: str, base: str, kinds: list[type[Policy]]
) -> None:
    """For tasks that their class guards, and for those that only their entry guards."""
    assert redis_binary
    policies = [kind() for kind in kinds]
    schedule = {policy.name: policy.entry() for policy in policies}
    with redis_site(schedule=schedule, base=base, install="setup") as site:
        site.start(pool="threads", concurrency=60)
        beat = site.beat()
        for policy in policies:
            site.ledger.await_begin(policy.name)
        for policy in policies:
            policy.await_met(site, beat)
        beat.stop()
        for policy in policies:
            site.open_gate(policy.name)
        site.await_drained()
        for policy in policies:
            sent = [line.task_id for line in beat.sent(policy.name)]
            policy.check(site, site.ledger.runs(policy.name), sent)


def test_ticks_without_a_worker_become_one_run(redis_binary: str) -> None:
    """
    A predecessor that is only queued folds with its successors into one.

    `allow_all` piles them up, as it says.
    """
    assert redis_binary
    schedule = {
        policy: entry(policy, {"overlap_policy": policy}, task="work", schedule=0.25)
        for policy in (*POLICIES, "allow_all")
    }
    with redis_site(schedule=schedule) as site:
        beat = site.beat()
        for policy in schedule:
            beat.await_due(policy, 20)
        beat.stop()
        sent = {policy: beat.sent(policy) for policy in schedule}
        assert len(sent["skip"]) == len(sent["buffer_one"]) == 1
        assert len(sent["allow_all"]) >= 10
        assert site.broker.waiting() == len(beat.sent())
        site.start()
        site.await_drained()
        for policy in POLICIES:
            ran = [run.task_id for run in site.ledger.runs(policy)]
            assert ran == [sent[policy][-1].task_id]
        assert len(site.ledger.runs("allow_all")) == len(sent["allow_all"])


def test_ticks_and_calls_by_hand_leave_each_other_alone(redis_binary: str, name: str) -> None:
    """
    A call queued by hand is run, whatever the entry's policy is; ticks do not overlap it.

    The other way round a tick's claim and lease refuse equal calls.
    """
    assert redis_binary
    schedule = {policy: entry(policy, {"overlap_policy": policy}) for policy in POLICIES}
    schedule["tick"] = entry(name, schedule=1.0)
    with redis_site(schedule=schedule) as site:
        manual = {policy: site.publish("held", policy) for policy in POLICIES}
        beat = site.beat()
        for policy, call in manual.items():
            beat.await_due(policy, 3)
            assert not beat.sent(policy)
            assert call.id in beat.log()
        sent = beat.await_sent(1, name)
        assert site.refusal("held", name).holder.task_id == sent.task_id
        site.start(pool="threads", concurrency=20)
        for policy, call in manual.items():
            assert site.ledger.await_begin(policy).task_id == call.id
            site.open_gate(policy)
        for policy, call in manual.items():
            site.ledger.await_begin(policy, 2)
            assert call.get(timeout=30) == policy
            assert not site.ledger.overlaps(policy)
        site.ledger.await_begin(name)
        refusal = site.refusal("held", name)
        assert refusal.holder.task_id == sent.task_id
        assert refusal.holder.fencing_token


def test_a_skip_does_not_use_up_a_one_off_row(redis_binary: str) -> None:
    """Plain counting would switch the row off before it ever ran."""
    assert redis_binary
    with redis_site() as site:
        for each in DATABASES:
            site.add_row(each, each, entry(each, schedule=1.0, one_off=True))
        manual = {each: site.publish("held", each) for each in DATABASES}
        beats = {each: site.spawn_beat(scheduler=each) for each in DATABASES}
        for each, beat in beats.items():
            beat.await_due(each, 3)  # so two of its ticks were skipped
            assert not beat.sent()
        site.start()
        for each, beat in beats.items():
            store = DATABASES[each](site.directory)
            site.open_gate(each)
            assert manual[each].get(timeout=30) == each
            sent = beat.await_sent(1, each)
            assert site.ledger.await_end(each, 2).task_id == sent.task_id
            switched_off = partial(one_off_is_over, store, each)
            eventually(switched_off, "the row was switched off")
            beat.stop()
            assert len(beat.sent()) == 1


def one_off_is_over(store: Database, name: str) -> bool:
    """Whether a row is switched off."""
    return not store.column("enabled", name)
