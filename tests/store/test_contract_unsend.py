"""A tick whose message could not be sent is taken back, and nothing of anyone else's."""

import pytest

from onceguard.rules.overlap import Predecessor
from onceguard.store.tick_contract import Verdict
from tests.store.rig import KEY, Rig, call
from tests.store.ticking import (
    BASE,
    ENTRY,
    QUEUED,
    WAITS,
    arrange,
    at,
    everything,
    new,
    state_name,
    tick,
    tick_and_send,
    waiting,
    waits,
)


@pytest.mark.parametrize(
    ("policy", "predecessor"),
    [
        ("skip", Predecessor.NONE),
        ("keep_latest", Predecessor.QUEUED),
        ("buffer_one", Predecessor.RUNNING),
        ("keep_latest", Predecessor.RUNNING_AND_BUFFERED),
        ("cancel_other", Predecessor.RUNNING_AND_BUFFERED),
    ],
)
def test_a_tick_taken_back_leaves_everything_as_it_was(
    rig: Rig, policy: str, predecessor: Predecessor
) -> None:
    """Slot, claim and the claim that it replaced, with the life that this had."""
    arrange(rig, predecessor)
    before, lives = everything(rig), life_of_each(rig)
    answer = rig.store.tick(new(policy))
    assert everything(rig) != before
    assert rig.store.unsend(new(policy), answer)
    after = everything(rig)
    assert {name: _shown(name, after[name]) for name in after} == {
        name: _shown(name, before[name]) for name in before
    }
    assert life_of_each(rig) == pytest.approx(lives, abs=5)


def _shown(name: str, value: str) -> str:
    """Of an entry's state what is promised: the rest was an answer, and is given."""
    return " ".join(value.split(" ")[:4]) if ":tick:" in name else value


def life_of_each(rig: Rig) -> dict[str, float]:
    """Seconds that each of Redis's keys has to live, but the index, which lives longer."""
    names = [str(key) for key in rig.raw.scan_iter(count=1000)]
    return {name: rig.raw.pttl(name) / 1000 for name in names if not name.endswith(":index")}


def test_a_tick_that_seemed_to_fail_and_runs_keeps_its_lease(rig: Rig) -> None:
    """A publish may fail with its message sent (G6)."""
    answer = rig.store.tick(tick(1))
    rig.run(tick(1).message, "n1")
    rig.store.unsend(tick(1), answer)
    assert rig.held(call("-")) == f"lease {QUEUED}"
    assert rig.listed(call("-")) == {f"{KEY} lease"}


@pytest.mark.parametrize("state", ["runs", "has ended", "was dropped"])
def test_a_replaced_claim_does_not_come_back_for_a_message_that_needs_none(
    rig: Rig, state: str
) -> None:
    """While the publish was failing the older message went on; nobody would free its claim."""
    arrange(rig, Predecessor.RUNNING_AND_BUFFERED)
    answer = rig.store.tick(new("keep_latest"))
    rig.finish(tick(2).message, "n2")
    if state == "was dropped":
        rig.drop(waits(tick(3)))
    else:
        rig.run(waits(tick(3)), "n3")
        if state == "has ended":
            rig.finish(waits(tick(3)), "n3")
    rig.store.unsend(new("keep_latest"), answer)
    assert waiting(rig, call("-")) == ""
    assert rig.held(call("-")) == (f"lease {WAITS}" if state == "runs" else "")


def test_a_replaced_claim_comes_back_for_a_message_that_was_put_off(rig: Rig) -> None:
    """It waits on."""
    arrange(rig, Predecessor.RUNNING_AND_BUFFERED)
    answer = rig.store.tick(new("keep_latest"))
    rig.put_off(waits(tick(3)), 1)
    rig.store.unsend(new("keep_latest"), answer)
    assert waiting(rig, call("-")) == f"claim {WAITS}"


def test_taking_back_frees_nobody_elses_claim(rig: Rig) -> None:
    """G6: the short claim has ended, and another publisher has the key."""
    answer = rig.store.tick(tick(1))
    rig.end_by_itself(call("-"))
    rig.claim(call("m1"))
    rig.store.unsend(tick(1), answer)
    assert rig.held(call("-")) == "claim m1"
    assert KEY in rig.listed(call("-"))


@pytest.mark.parametrize("policy", ["skip", None], ids=["once", "without once"])
def test_a_tick_that_could_not_be_sent_is_another_beats_to_send(
    rig: Rig, policy: str | None
) -> None:
    """A beat that has lost its broker must not take the tick with it."""
    mine, theirs = tick(1, policy=policy), tick(2, policy=policy, slot=at(BASE + 1))
    answer = rig.store.tick(mine)
    assert rig.store.unsend(mine, answer)
    assert everything(rig) == {}
    assert rig.store.tick(theirs).verdict is Verdict.SEND


def test_a_tick_taken_back_leaves_the_one_before(rig: Rig) -> None:
    """With its skips, and a life of its own: else the one before could be sent again."""
    rig.claim(call("m1"))
    before = rig.store.tick(tick(1)).after
    rig.store.unclaim(call("m1"))
    answer = rig.store.tick(tick(2))
    rig.raw.pexpire(state_name(rig), 1000)
    assert answer.before == before
    assert rig.store.unsend(tick(2), answer)
    (last,) = rig.store.last_ticks([ENTRY])
    assert last is not None
    assert (last.slot, last.skips) == (BASE + 1, 1)
    assert rig.raw.pttl(state_name(rig)) > 3_600_000
    assert rig.store.tick(tick(3, slot=at(BASE + 1))).verdict is Verdict.TAKEN


def test_a_tick_is_not_taken_back_after_the_next_one(rig: Rig) -> None:
    """A publish that hung for an interval fails now: the schedule has gone on."""
    answer = rig.store.tick(tick(1))
    rig.raw.delete(rig.names(tick(1).message).lock(tick(1).message))
    after = tick_and_send(rig, tick(2)).after
    assert not rig.store.unsend(tick(1), answer)
    assert str(rig.raw.get(state_name(rig))).startswith(after)
    assert rig.held(tick(2).message) == f"claim {tick(2).message.message_id}"


def test_taking_a_tick_back_again_changes_nothing(rig: Rig) -> None:
    """The first reply may have been lost."""
    answer = rig.store.tick(tick(1))
    rig.store.unsend(tick(1), answer)
    tick_and_send(rig, tick(2, slot=at(BASE + 1)))
    before = everything(rig)
    assert not rig.store.unsend(tick(1), answer)
    assert everything(rig) == before
