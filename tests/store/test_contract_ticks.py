"""
Which firing of a schedule entry is claimed: once, however many beats ask.

What becomes of the call that it would send is in `test_contract_overlap.py`.
"""

from dataclasses import replace

import pytest

from onceguard.rules.errors import StoreUnavailable
from onceguard.store.tick_contract import Verdict
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import eventually
from tests.store.rig import Rig, call, open_rig, open_rig_at
from tests.store.ticking import (
    BASE,
    ELSEWHERE,
    ENTRY,
    OTHER,
    at,
    everything,
    interval,
    remember,
    sent,
    state_name,
    tick,
    tick_and_send,
    waits,
)

MINUTE = 60.0
DAY = 86400.0
KINDS = pytest.mark.parametrize("policy", ["skip", None], ids=["once", "without once"])


@KINDS
def test_of_two_beats_one_sends_a_tick(rig: Rig, policy: str | None) -> None:
    """G8; the other learns when that was, to be due together with it from then on."""
    now = rig.now()
    first = rig.store.tick(tick(1, policy=policy, slot=at(now - 1)))
    other = rig.store.tick(tick(2, policy=policy, slot=at(now - 1)))
    assert (first.verdict, other.verdict) == (Verdict.SEND, Verdict.TAKEN)
    assert other.last.slot == pytest.approx(now - 1, abs=0.002)
    assert 0 <= other.last.age < 30
    assert (other.holder, other.superseded, other.waits) == (None, (), False)


@KINDS
def test_the_next_tick_is_a_new_one(rig: Rig, policy: str | None) -> None:
    """By whichever beat."""
    tick_and_send(rig, tick(1, policy=policy))
    rig.store.finish(tick(1).message, nonce="n", completed_for=60)
    assert rig.store.tick(tick(2, policy=policy)).verdict is Verdict.SEND


@pytest.mark.parametrize(
    ("later", "verdict"),
    [
        (-0.4, Verdict.TAKEN),
        (0.4, Verdict.TAKEN),
        (0.5, Verdict.SEND),
        (-MINUTE, Verdict.TAKEN),
        (-5 * MINUTE, Verdict.TAKEN),
        (-30 * DAY, Verdict.TAKEN),
    ],
)
def test_an_instant_is_new_if_it_is_later_than_the_last(
    rig: Rig, later: float, verdict: Verdict
) -> None:
    """
    Solar instants differ a little; a beat whose clock lags by minutes asks for old ones.

    That one must not send each minute a second time (G11).
    """
    now = round(rig.now(), 3)
    rig.store.tick(tick(1, slot=at(now), policy=None))
    assert rig.store.tick(tick(2, slot=at(now + later), policy=None)).verdict is verdict


@pytest.mark.parametrize(
    ("ago", "verdict"),
    [
        (30.0, Verdict.TAKEN),
        (58.0, Verdict.TAKEN),
        (59.99, Verdict.SEND),
        (61.0, Verdict.SEND),
        (-50.0, Verdict.TAKEN),
        (-70.0, Verdict.SEND),
    ],
)
def test_an_interval_is_due_by_the_servers_clock(
    rig: Rig, ago: float, verdict: Verdict
) -> None:
    """
    Beats with whatever clocks; a fiftieth of a second early is not too early.

    A last tick that is ahead by more than an interval is from before the server's clock
    was set back: waiting for it could last for hours.
    """
    remember(rig, slot=rig.now() - ago, claimed=rig.now() - ago)
    assert rig.store.tick(tick(1, slot=interval(MINUTE), policy=None)).verdict is verdict


@pytest.mark.parametrize(
    ("ahead", "claimed", "verdict"),
    [
        (50.0, -100.0, Verdict.TAKEN),
        (70.0, -100.0, Verdict.SEND),
        (DAY, -100.0, Verdict.SEND),
        (DAY, -80.0, Verdict.TAKEN),
        (DAY, +80.0, Verdict.SEND),
    ],
)
def test_a_last_slot_from_a_clock_that_was_set_back_is_not_believed(
    rig: Rig, ahead: float, claimed: float, verdict: Verdict
) -> None:
    """
    A beat whose clock was a day ahead must not stop the schedule for a day.

    But one whose clock still is sends each tick, and the others must not send it again:
    so not before nobody has claimed anything for a period and a half. The last row is
    the lock server's own clock, set back.
    """
    now = rig.now()
    remember(rig, slot=now + ahead, claimed=now + claimed)
    answer = rig.store.tick(tick(1, slot=at(now), policy=None))
    assert answer.verdict is verdict
    if verdict is Verdict.SEND:
        assert answer.last.slot == pytest.approx(now, abs=0.002)
        assert rig.store.tick(tick(2, slot=at(now), policy=None)).verdict is Verdict.TAKEN


@pytest.mark.parametrize(
    ("last", "slot"),
    [
        pytest.param(0.0, -5 * MINUTE, id="the beat's clock is behind"),
        pytest.param(DAY, DAY, id="the server's clock is behind"),
    ],
)
def test_a_last_slot_is_not_wrong_for_being_ahead_of_one_clock_only(
    rig: Rig, last: float, slot: float
) -> None:
    """Of the beat that asks, or of the server: which of two is wrong nobody can tell."""
    now = rig.now()
    remember(rig, slot=now + last, claimed=now - 100)
    answer = rig.store.tick(tick(1, slot=at(now + slot), policy=None))
    assert answer.verdict is Verdict.TAKEN


def test_a_server_whose_clock_is_behind_lets_no_tick_pass_twice(rig: Rig) -> None:
    """Its clock is not what crontabs go by; only the beats' own instants are compared."""
    ahead = rig.now() + DAY
    rig.store.tick(tick(1, slot=at(ahead), policy=None))
    assert rig.store.tick(tick(2, slot=at(ahead), policy=None)).verdict is Verdict.TAKEN
    answer = rig.store.tick(tick(3, slot=at(ahead + MINUTE), policy=None))
    assert answer.verdict is Verdict.SEND
    assert answer.late < 0


def test_without_claimed_slots_each_beat_sends(rig: Rig) -> None:
    """`once_beat_ticks=False`: the schedule has one beat, and its ticks are all new."""
    answers = [
        rig.store.tick(tick(n, slot=at(BASE), claims_slot=False, policy=None)) for n in (1, 2)
    ]
    assert [answer.verdict for answer in answers] == [Verdict.SEND, Verdict.SEND]
    assert [answer.due_at for answer in answers] == [BASE, BASE]


def test_without_claimed_slots_a_tick_is_due_when_its_schedule_says(rig: Rig) -> None:
    """Not when the one before was: that would be too late, for ever."""
    now = rig.now()
    remember(rig, slot=now - MINUTE, claimed=now - MINUTE)
    answer = rig.store.tick(tick(1, slot=interval(MINUTE), claims_slot=False, grace=30.0))
    assert answer.verdict is Verdict.SEND
    assert answer.due_at == pytest.approx(now, abs=30)


def test_a_crontab_tick_was_due_at_its_instant(rig: Rig) -> None:
    """The run reads it as `scheduled_time`."""
    now = rig.now()
    remember(rig, slot=now - MINUTE, claimed=now - MINUTE)
    answer = rig.store.tick(tick(1, slot=at(now - 2.5)))
    assert answer.due_at == pytest.approx(now - 2.5, abs=0.002)
    assert 2.4 < answer.late < 30


@pytest.mark.parametrize(("ago", "late"), [(MINUTE + 7, 7.0), (MINUTE - 0.01, 0.0)])
def test_an_interval_tick_was_due_an_interval_after_the_last(
    rig: Rig, ago: float, late: float
) -> None:
    """A beat that was away for a while finds it late; one that is early finds it due."""
    now = rig.now()
    remember(rig, slot=now - ago, claimed=now - ago)
    answer = rig.store.tick(tick(1, slot=interval(MINUTE)))
    assert answer.verdict is Verdict.SEND
    assert late <= answer.late < late + 30
    assert answer.due_at == pytest.approx(rig.now() - answer.late, abs=30)


def test_the_first_tick_of_an_interval_is_due_when_it_is_asked_for(rig: Rig) -> None:
    """Nobody knows since when it should have been."""
    answer = rig.store.tick(tick(1, slot=interval(MINUTE), grace=0.1))
    assert (answer.verdict, answer.late) == (Verdict.SEND, 0.0)
    assert answer.last.slot == answer.due_at == pytest.approx(rig.now(), abs=30)


@KINDS
def test_a_tick_that_is_too_late_is_missed_by_all_beats(rig: Rig, policy: str | None) -> None:
    """`misfire_grace_time`: after an outage nobody wants this morning's report tonight."""
    slot = at(rig.now() - 20)
    missed = rig.store.tick(tick(1, slot=slot, grace=19.0, policy=policy))
    assert missed.verdict is Verdict.MISSED
    assert not missed.verdict.sends
    assert 19.9 < missed.late < 60
    assert rig.held(call("any")) == ""
    other = rig.store.tick(tick(2, slot=slot, grace=19.0, policy=policy))
    assert (other.verdict, other.last.skips) == (Verdict.TAKEN, 1)


def test_a_tick_within_its_grace_is_sent(rig: Rig) -> None:
    """A beat that restarts comes a little late to everything."""
    assert rig.store.tick(tick(1, slot=at(rig.now() - 20), grace=40.0)).verdict.sends
    remember(rig, slot=rig.now() - 80, claimed=rig.now() - 80)
    late = tick(2, slot=interval(MINUTE), grace=40.0, policy=None)
    assert rig.store.tick(late).verdict is Verdict.SEND


def test_a_missed_interval_is_due_an_interval_later(rig: Rig) -> None:
    """One tick is lost to an outage; not each one after it as well."""
    remember(rig, slot=rig.now() - 300, claimed=rig.now() - 300)
    late = tick(1, slot=interval(MINUTE), grace=40.0)
    assert rig.store.tick(late).verdict is Verdict.MISSED
    assert rig.store.tick(tick(2, slot=interval(MINUTE))).verdict is Verdict.TAKEN


def test_ticks_that_are_not_sent_are_counted_until_one_is(rig: Rig) -> None:
    """A job that is always skipped is a job that never runs: beat warns at 2, 4, 8."""
    begin = rig.now() - MINUTE
    due = [tick(n, slot=at(begin + n)) for n in range(6)]
    rig.claim(call("m1"))
    assert [rig.store.tick(each).last.skips for each in due[:2]] == [1, 2]
    assert rig.store.tick(tick(9, slot=due[1].slot)).last.skips == 2  # taken: no skip
    missed = rig.store.tick(tick(2, slot=due[2].slot, grace=1.0))
    assert (missed.verdict, missed.last.skips) == (Verdict.MISSED, 3)
    rig.store.unclaim(call("m1"))
    assert tick_and_send(rig, due[3]).last.skips == 0
    assert rig.store.tick(due[4]).last.skips == 1


def test_last_ticks_are_read_by_entry(rig: Rig) -> None:
    """A beat that starts takes them over; entries that are new have none."""
    before = rig.now()
    rig.store.tick(tick(1, slot=at(before - 10)))
    rig.store.tick(tick(2, slot=at(before - 20), entry=ELSEWHERE, key="another()"))
    rig.claim(call("m1", key="third()"))
    rig.store.tick(tick(3, slot=at(before - 30), entry=OTHER, key="third()"))
    asked = [OTHER, "f" * 24, ELSEWHERE, ENTRY]
    third, nobody, second, first = rig.store.last_ticks(asked)
    assert nobody is None
    assert first is not None
    assert second is not None
    assert third is not None
    slots = [each.slot for each in (first, second, third)]
    assert slots == pytest.approx([before - 10, before - 20, before - 30], abs=0.002)
    assert [each.skips for each in (first, second, third)] == [0, 0, 1]
    assert all(0 <= each.age < 30 for each in (first, second, third))
    assert rig.store.last_ticks([]) == []


def test_the_age_of_a_last_tick_is_by_the_servers_clock(rig: Rig) -> None:
    """Beats subtract it from their own clocks, which may all be wrong in their own way."""
    now = rig.now()
    remember(rig, slot=now - 500, claimed=now - 300)
    (last,) = rig.store.last_ticks([ENTRY])
    assert last is not None
    assert last.age == pytest.approx(300, abs=30)
    assert rig.store.tick(tick(1, slot=at(now - 500))).last.age == pytest.approx(300, abs=30)
    remember(rig, slot=now, claimed=now + 300)
    (last,) = rig.store.last_ticks([ENTRY])
    assert last is not None
    assert last.age == 0


def test_an_entry_that_is_seen_for_the_first_time_is_due_from_there(rig: Rig) -> None:
    """An interval longer than the time between two deployments runs all the same."""
    seen = {ENTRY: 7200.0, ELSEWHERE: 7200.0}
    rig.store.tick(tick(1, slot=at(BASE), entry=ELSEWHERE, policy=None))
    known = everything(rig)
    first, other, never = rig.store.last_ticks([ENTRY, ELSEWHERE, OTHER], first_seen=seen)
    assert (first, never) == (None, None)
    assert other is not None
    assert other.slot == BASE
    assert 7_000_000 < rig.raw.pttl(state_name(rig)) <= 7_200_000
    again, other, never = rig.store.last_ticks([ENTRY, ELSEWHERE, OTHER], first_seen=seen)
    assert again is not None
    assert other is not None
    assert other.slot == BASE, "it has been seen before"
    assert again.slot == pytest.approx(rig.now(), abs=30)
    assert (again.skips, never) == (0, None)
    assert set(everything(rig)) == {*known, state_name(rig)}
    early = rig.store.tick(tick(2, slot=interval(MINUTE), policy=None))
    assert early.verdict is Verdict.TAKEN


def test_entries_take_no_ticks_from_one_another(rig: Rig) -> None:
    """Every app has a `celery.backend_cleanup`; its identity is part of the entry's."""
    for entry in (ENTRY, OTHER, ELSEWHERE):
        answer = rig.store.tick(tick(1, entry=entry, policy=None))
        assert (answer.verdict, answer.before) == (Verdict.SEND, "")


def test_prefixes_take_no_ticks_from_one_another(rig: Rig) -> None:
    """`once_prefix` parts projects that share a server, ticks and all."""
    beside = open_rig_at(rig, prefix="other")
    tick_and_send(rig, tick(1))
    answer = tick_and_send(beside, tick(2))
    assert (answer.verdict, answer.before) == (Verdict.SEND, "")
    rig.store.unsend(tick(1), answer)
    (theirs,) = beside.store.last_ticks([ENTRY])
    assert theirs is not None
    assert beside.held(tick(2).message) == f"claim {tick(2).message.message_id}"


def test_the_state_of_an_entry_lives_for_as_long_as_it_is_told(rig: Rig) -> None:
    """A yearly crontab's must live for more than a year; each tick gives it a new life."""
    name = state_name(rig)
    rig.store.tick(tick(1, remember_for=800 * DAY))
    assert rig.raw.pttl(name) > 799 * DAY * 1000
    rig.store.tick(tick(2, remember_for=2 * DAY))
    assert DAY * 1000 < rig.raw.pttl(name) <= 2 * DAY * 1000
    rig.raw.pexpire(name, 1000)
    rig.store.tick(tick(2, remember_for=2 * DAY, slot=at(BASE + 1)))
    assert rig.raw.pttl(name) <= 1000, "a tick that is taken is not this beat's to prolong"


def test_the_state_of_an_entry_can_be_read(rig: Rig) -> None:
    """docs/explanation/beat.md says so: instant, when claimed, skips, message id."""
    now = rig.now()
    answer = rig.store.tick(tick(1, slot=at(now)))
    slot, claimed, skips, message_id = str(rig.raw.get(state_name(rig))).split(" ")[:4]
    assert int(slot) == round(now * 1000)
    assert int(claimed) / 1000 == pytest.approx(now, abs=30)
    assert (skips, message_id) == ("0", tick(1).message.message_id)
    assert answer.after == f"{slot} {claimed} {skips} {message_id}"


def test_only_tick_and_unsend_touch_two_partitions(redis_binary: str) -> None:
    """docs/decisions/0010: on a Cluster a store of its own has to make two calls of them."""
    assert redis_binary
    server = RedisServer("--cluster-enabled", "yes").start()
    try:
        rig = open_rig(server)
        rig.command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        eventually(
            lambda: "ok" in str(rig.command("CLUSTER INFO")["cluster_state"]),
            "the cluster owned all slots",
        )
        near, far = tick(1), tick(2, entry=ELSEWHERE)
        answer = rig.store.tick(near)
        assert rig.store.unsend(near, answer)
        sent(rig, far, replace(answer, superseded=("m1",)))
        rig.run(waits(far), "n1")
        rig.put_off(waits(far), 1)
        rig.drop(waits(far))
        assert rig.store.last_ticks([ENTRY, ELSEWHERE, OTHER]) == [None, None, None]
        for illegal in (lambda: rig.store.tick(far), lambda: rig.store.unsend(far, answer)):
            with pytest.raises(StoreUnavailable, match="slot"):
                illegal()
    finally:
        server.close()
