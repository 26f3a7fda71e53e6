"""
What becomes of the call that a tick would send, and of what it finds at its key.

Which firings are claimed at all is in `test_contract_ticks.py`.
"""

import math

import pytest

from onceguard.rules.choices import OverlapPolicy
from onceguard.rules.overlap import Action, Predecessor, decide
from onceguard.rules.ticks import instant_slot
from onceguard.store.tick_contract import Tick, Ticked, Verdict
from tests.store.rig import UNIQUE_FOR, Rig, call
from tests.store.ticking import (
    CLAIM_FOR,
    NEW,
    OTHER,
    QUEUED,
    RUNS,
    SUPERSEDED_FOR,
    WAITS,
    arrange,
    everything,
    new,
    sent,
    state_name,
    tick,
    tick_and_send,
    waiting,
)

LOOKING = [policy for policy in OverlapPolicy if policy is not OverlapPolicy.ALLOW_ALL]


@pytest.mark.parametrize("predecessor", Predecessor)
@pytest.mark.parametrize("policy", LOOKING)
def test_the_store_finds_the_predecessor_and_does_as_the_table_says(
    rig: Rig, policy: OverlapPolicy, predecessor: Predecessor
) -> None:
    """In one step, so that nothing can come in between."""
    arrange(rig, predecessor)
    lock, beside = rig.held(call("-")), waiting(rig, call("-"))
    answer = rig.store.tick(new(policy))
    assert answer.verdict.value == decide(policy, predecessor).value
    assert (answer.holder is None) == (predecessor is Predecessor.NONE)
    if answer.verdict.sends:
        assert sent(rig, new(policy), answer)
        lock, beside = (lock, f"claim {NEW}") if answer.waits else (f"claim {NEW}", beside)
    assert (rig.held(call("-")), waiting(rig, call("-"))) == (lock, beside)
    runs = predecessor in {Predecessor.RUNNING, Predecessor.RUNNING_AND_BUFFERED}
    assert answer.waits == (runs and answer.verdict.sends)


@pytest.mark.parametrize(
    ("policy", "predecessor", "superseded"),
    [
        ("skip", Predecessor.RUNNING_AND_BUFFERED, ()),
        ("buffer_one", Predecessor.RUNNING, ()),
        ("keep_latest", Predecessor.QUEUED, (QUEUED,)),
        ("keep_latest", Predecessor.RUNNING, ()),
        ("keep_latest", Predecessor.RUNNING_AND_BUFFERED, (WAITS,)),
        ("cancel_other", Predecessor.QUEUED, (QUEUED,)),
        ("cancel_other", Predecessor.RUNNING, (RUNS,)),
        ("cancel_other", Predecessor.RUNNING_AND_BUFFERED, (RUNS, WAITS)),
    ],
)
def test_a_tick_supersedes_what_it_is_sent_instead_of(
    rig: Rig, policy: str, predecessor: Predecessor, superseded: tuple[str, ...]
) -> None:
    """And nothing else; not before it is sent (rule 8), for it may never be."""
    arrange(rig, predecessor)
    answer = rig.store.tick(new(policy))
    assert answer.superseded == superseded
    notes = {name: rig.raw.get(rig.names(call("-")).record(name)) for name in superseded}
    assert not any(str(note).endswith("superseded") for note in notes.values())
    sent(rig, new(policy), answer)
    for name in superseded:
        record = rig.names(call("-")).record(name)
        assert str(rig.raw.get(record)).endswith(" superseded")
        assert SUPERSEDED_FOR - 5 < rig.raw.pttl(record) / 1000 <= SUPERSEDED_FOR


@pytest.mark.parametrize("predecessor", [each for each in Predecessor if each.value != "none"])
def test_a_skip_says_because_of_whom(rig: Rig, predecessor: Predecessor) -> None:
    """Beat logs the holder and since when."""
    arrange(rig, predecessor)
    answer = rig.store.tick(new("skip"))
    assert answer.holder is not None
    holder = answer.holder.holder
    if predecessor is Predecessor.QUEUED:
        assert (holder.state, holder.message_id) == ("claim", QUEUED)
        assert UNIQUE_FOR - 5 < answer.holder.time_left <= UNIQUE_FOR
    else:
        assert (holder.state, holder.message_id) == ("lease", RUNS)
        assert 25 < answer.holder.time_left <= 30


def test_a_waiting_tick_alone_is_a_queued_one(rig: Rig) -> None:
    """Between the end of the run and its own start it folds later ticks into itself."""
    arrange(rig, Predecessor.RUNNING_AND_BUFFERED)
    rig.finish(tick(2).message, "n2")
    answer = rig.store.tick(new("buffer_one"))
    assert answer.verdict is Verdict.SKIP
    assert answer.holder is not None
    assert answer.holder.holder.message_id == WAITS
    assert answer.holder.time_left > CLAIM_FOR
    newest = rig.store.tick(tick(5, policy="keep_latest"))
    assert (newest.verdict, newest.superseded, newest.waits) == (
        Verdict.REPLACE,
        (WAITS,),
        True,
    )
    assert rig.held(call("-")) == ""


@pytest.mark.parametrize("policy", ["keep_latest", "cancel_other"])
@pytest.mark.parametrize("whose", ["a publisher's", "another entry's"])
def test_what_anyone_else_has_queued_is_not_superseded(
    rig: Rig, policy: str, whose: str
) -> None:
    """It may have other arguments, and somebody waits for its result."""
    if whose == "a publisher's":
        rig.claim(call("m1"))
    else:
        tick_and_send(rig, tick(1, entry=OTHER))
    before = rig.held(call("-"))
    answer = rig.store.tick(new(policy))
    assert (answer.verdict, answer.superseded, answer.replaced) == (Verdict.SKIP, (), "")
    assert answer.last.skips == 1
    assert rig.held(call("-")) == before


@pytest.mark.parametrize("policy", ["keep_latest", "cancel_other"])
def test_what_anyone_else_has_buffered_is_not_superseded(rig: Rig, policy: str) -> None:
    """Two entries may share a key, each with ticks of its own. The run goes on, too."""
    arrange(rig, Predecessor.RUNNING)
    theirs = tick(1, entry=OTHER, policy="buffer_one")
    tick_and_send(rig, theirs)
    answer = rig.store.tick(new(policy))
    assert (answer.verdict, answer.superseded, answer.replaced) == (Verdict.DROP, (), "")
    assert waiting(rig, call("-")) == f"claim {theirs.message.message_id}"


def test_an_own_tick_is_replaced_while_anyone_elses_waits(rig: Rig) -> None:
    """The one that is queued is in the way of nobody else's."""
    arrange(rig, Predecessor.RUNNING)
    theirs = tick(1, entry=OTHER, policy="buffer_one")
    tick_and_send(rig, theirs)
    rig.finish(tick(2).message, "n2")
    rig.claim(tick(3).message)
    answer = rig.store.tick(new("keep_latest"))
    assert (answer.verdict, answer.superseded, answer.waits) == (
        Verdict.REPLACE,
        (WAITS,),
        False,
    )
    sent(rig, new("keep_latest"), answer)
    assert rig.held(call("-")) == f"claim {NEW}"
    assert waiting(rig, call("-")) == f"claim {theirs.message.message_id}"


def test_allow_all_claims_nothing_and_is_in_nobodys_way(rig: Rig) -> None:
    """Ticks of that policy run beside one another, and beside other calls."""
    arrange(rig, Predecessor.RUNNING)
    before = everything(rig)
    answer = rig.store.tick(tick(4, policy=None))
    assert (answer.verdict, answer.holder) == (Verdict.SEND, None)
    after = everything(rig)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {state_name(rig)}


@pytest.mark.parametrize("own_lease", [False, True], ids=["key", "message"])
def test_ticks_of_scope_until_executing_fold_until_the_start(rig: Rig, own_lease: bool) -> None:
    """Their runs hold no key, so that nothing is running for the next tick."""
    tick_and_send(rig, tick(1, own_lease=own_lease))
    assert rig.store.tick(tick(2, own_lease=own_lease)).verdict is Verdict.SKIP
    rig.run(tick(1, own_lease=own_lease).message, "n1")
    verdict = rig.store.tick(tick(3, own_lease=own_lease)).verdict
    assert verdict is (Verdict.SEND if own_lease else Verdict.SKIP)


def answers_alike(rig: Rig, tick: Tick) -> tuple[Ticked, Ticked]:
    """What a tick is answered, and what when it asks again."""
    first = rig.store.tick(tick)
    before = everything(rig)
    again = rig.store.tick(tick)
    assert everything(rig) == before
    return first, again


@pytest.mark.parametrize("predecessor", Predecessor)
@pytest.mark.parametrize("policy", LOOKING)
def test_a_tick_sent_again_is_answered_alike(
    rig: Rig, policy: OverlapPolicy, predecessor: Predecessor
) -> None:
    """
    The first reply may have been lost, and a script's call is sent again then.

    Whom it supersedes, what it replaced and how it is taken back: all that must come
    with the second one.
    """
    arrange(rig, predecessor)
    first, again = answers_alike(rig, new(policy))
    assert again == first
    assert (again.last.skips == 1) == (
        decide(policy, predecessor) in {Action.SKIP, Action.DROP}
    )


@pytest.mark.parametrize("task_id", ["a b", 'quo"ted\\', "ümläut", "x/y\n"])
def test_whose_tick_was_sent_again_may_have_any_task_id(rig: Rig, task_id: str) -> None:
    """Task ids are the user's to choose; an answer that is kept must keep them."""
    rig.claim(call("m1", task_id=task_id))
    first, again = answers_alike(rig, new("skip"))
    assert again == first
    assert again.holder is not None
    assert again.holder.holder.task_id == task_id


@pytest.mark.parametrize("predecessor", [Predecessor.QUEUED, Predecessor.RUNNING_AND_BUFFERED])
@pytest.mark.parametrize("before", [True, False], ids=["later", "the first tick"])
def test_a_firing_without_a_next_is_not_claimed_by_a_skip(
    rig: Rig, predecessor: Predecessor, before: bool
) -> None:
    """A clocked row is tried again until its key is free; by another beat, perhaps."""
    arrange(rig, predecessor)
    if not before:
        rig.raw.delete(state_name(rig))
    left = everything(rig)
    final = instant_slot(rig.now(), math.inf)
    for number in (4, 4, 5):
        answer = rig.store.tick(tick(number, policy="buffer_one", slot=final))
        assert answer.verdict in {Verdict.SKIP, Verdict.DROP}
        assert answer.holder is not None
    assert everything(rig) == left
    assert rig.store.tick(tick(6, policy=None, slot=final)).verdict is Verdict.SEND
    assert rig.store.tick(tick(7, policy=None, slot=final)).verdict is Verdict.TAKEN


def test_a_firing_without_a_next_is_missed_for_good(rig: Rig) -> None:
    """It will only be later; its row is to be done with."""
    final = instant_slot(rig.now() - 20, math.inf)
    assert rig.store.tick(tick(1, slot=final, grace=5.0)).verdict is Verdict.MISSED
    assert rig.store.tick(tick(2, slot=final, grace=5.0)).verdict is Verdict.TAKEN
