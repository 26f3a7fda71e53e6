"""How a run ends: finished, abandoned by a dead process, or cut short by its time limit."""

import pytest

from onceguard.store.contract import Answer
from tests.store.rig import COMPLETED_FOR, KEY, UNIQUE_FOR, Rig, call

SCOPES = pytest.mark.parametrize("own_lease", [False, True], ids=["key", "message"])


@SCOPES
def test_finish_frees_the_lease_and_records_completion(rig: Rig, own_lease: bool) -> None:
    """One call between the stored result and the ack."""
    message = call("m1", own_lease=own_lease)
    rig.run(message, "n1")
    assert rig.finish(message, "n1")
    assert not rig.raw.exists(rig.lease_name(message))
    assert rig.record(message) == "done 1 0 n1"
    assert COMPLETED_FOR - 5 < rig.memory_of(message) <= COMPLETED_FOR
    assert rig.listed(message) == set()


def test_finish_sent_again_changes_nothing(rig: Rig) -> None:
    """A lost reply: the next holder may have come in between."""
    rig.run(call("m1"), "n1")
    rig.finish(call("m1"), "n1", retry="m1.r1")
    rig.finish(call("m1"), "n1", retry="m1.r1")
    assert rig.held(call("m1")) == "claim m1.r1"
    rig.run(call("m2"), "n2")
    rig.finish(call("m1"), "n1")
    assert rig.held(call("m2")) == "lease m2"


def test_a_late_finish_leaves_the_next_holder_alone_and_still_completes(rig: Rig) -> None:
    """G6 and rule 5: A stalls, B starts, A ends: B keeps the key, A's message is done."""
    rig.run(call("m1"), "n1")
    rig.end_by_itself(call("m1"))
    rig.run(call("m2"), "n2")
    assert not rig.finish(call("m1"), "n1", retry="m1.r1")
    assert rig.held(call("m2")) == "lease m2"
    assert rig.start(call("m1"), "n3").answer is Answer.ALREADY_COMPLETED


@SCOPES
def test_a_late_finish_leaves_a_later_delivery_of_its_message_alone(
    rig: Rig, own_lease: bool
) -> None:
    """Rule 9: by nonce, never by message id or task id."""
    message = call("m1", own_lease=own_lease)
    rig.run(message, "n1")
    rig.end_by_itself(message)
    rig.run(message, "n2")
    assert not rig.finish(message, "n1")
    held = rig.store.holder(message)
    assert held is not None
    assert held.holder.nonce == "n2"


def test_finish_ends_a_claim_of_its_own_message(rig: Rig) -> None:
    """Rule 10: a rejected message has no lease, but the claim that its dead run left."""
    rig.run(call("m1"), "n1")
    rig.abandon(call("m1"), "n1")
    assert not rig.finish(call("m1"), "n2")
    assert rig.held(call("m1")) == ""
    assert rig.listed(call("m1")) == set()


def test_finish_leaves_anothers_claim_alone(rig: Rig) -> None:
    """A skipped overlap ends while a third call is queued."""
    rig.claim(call("m2"))
    rig.finish(call("m1"), "n1")
    assert rig.held(call("m2")) == "claim m2"


def test_finish_passes_the_key_on_to_the_retry(rig: Rig) -> None:
    """No equal call may slip in between a run and its retry."""
    rig.run(call("m1"), "n1")
    assert rig.finish(call("m1"), "n1", retry="m1.r1")
    held = rig.claim(call("m2"))
    assert held is not None
    assert (held.holder.state, held.holder.message_id) == ("claim", "m1.r1")
    assert held.holder.task_id == "task-of-m1"
    assert UNIQUE_FOR - 5 < held.time_left <= UNIQUE_FOR
    assert rig.listed(call("m1")) == {KEY}


def test_scope_until_executing_passes_a_free_key_on_and_no_other(rig: Rig) -> None:
    """The retry is queued like any call; one that is queued already keeps its claim."""
    message = call("m1", own_lease=True)
    rig.run(message, "n1")
    rig.claim(call("m2", own_lease=True))
    rig.finish(message, "n1", retry="m1.r1")
    assert rig.held(message) == "claim m2"
    rig.store.unclaim(call("m2", own_lease=True))
    rig.run(call("m3", own_lease=True), "n3")
    rig.finish(call("m3", own_lease=True), "n3", retry="m3.r1")
    assert rig.held(message) == "claim m3.r1"


def test_a_late_finish_claims_nothing_for_a_retry_that_is_over(rig: Rig) -> None:
    """
    A claim of a completed message is freed by nobody: it blocks the key for unique_for.

    m1 publishes its retry and stalls, its lease ends, the retry runs and finishes, then
    m1 comes to its end.
    """
    retry = call("m1.r1", task_id="task-of-m1")
    rig.run(call("m1"), "n1")
    rig.end_by_itself(call("m1"))
    rig.start(retry, "n2", parent_id="m1")
    rig.finish(retry, "n2")
    rig.finish(call("m1"), "n1", retry="m1.r1")
    assert rig.held(call("m1")) == ""


def test_a_finish_claims_nothing_for_a_retry_that_has_started(rig: Rig) -> None:
    """
    In scope until_executing a claim ends at start; this one would begin after it.

    m1 publishes its retry and stalls past its lease; another worker starts the retry
    before m1 has come to its end.
    """
    retry = call("m1.r1", task_id="task-of-m1", own_lease=True)
    rig.run(call("m1", own_lease=True), "n1")
    rig.end_by_itself(call("m1", own_lease=True))
    rig.start(retry, "n2", parent_id="m1")
    rig.finish(call("m1", own_lease=True), "n1", retry="m1.r1")
    assert rig.held(retry) == ""


def test_abandon_turns_the_lease_into_the_messages_claim(rig: Rig) -> None:
    """Rule 9: the message will be delivered again; no equal call may be queued meanwhile."""
    rig.run(call("m1"), "n1")
    assert rig.abandon(call("m1"), "n1")
    held = rig.claim(call("m2"))
    assert held is not None
    assert (held.holder.state, held.holder.message_id) == ("claim", "m1")
    assert held.holder.task_id == "task-of-m1"
    assert UNIQUE_FOR - 5 < held.time_left <= UNIQUE_FOR
    assert rig.listed(call("m1")) == {KEY}
    again = rig.start(call("m1"), "n2")
    assert (again.answer, again.starts) == (Answer.ACQUIRED, 2)


@SCOPES
def test_abandon_without_a_claim_frees_the_lease(rig: Rig, own_lease: bool) -> None:
    """Scopes that hold nothing between publish and start claim nothing back."""
    message = call("m1", own_lease=own_lease)
    rig.run(message, "n1")
    assert rig.abandon(message, "n1", unique_for=0)
    assert rig.held(message) == ""
    assert not rig.raw.exists(rig.lease_name(message))
    assert rig.listed(message) == set()


@SCOPES
def test_abandon_compares_the_nonce(rig: Rig, own_lease: bool) -> None:
    """G6: the death of a stalled delivery's child must not free the next delivery's run."""
    message = call("m1", own_lease=own_lease)
    rig.run(message, "n1")
    rig.end_by_itself(message)
    rig.run(message, "n2")
    assert not rig.abandon(message, "n1")
    held = rig.store.holder(message)
    assert held is not None
    assert held.holder.nonce == "n2"


def test_abandon_leaves_a_claim_alone(rig: Rig) -> None:
    """Sent again after a lost reply, or after a lost lease, it changes nothing."""
    rig.run(call("m1"), "n1")
    rig.abandon(call("m1"), "n1")
    before = rig.raw.get(rig.lease_name(call("m1")))
    assert not rig.abandon(call("m1"), "n1")
    assert rig.raw.get(rig.lease_name(call("m1"))) == before


@SCOPES
def test_an_abandoned_run_of_a_settled_message_keeps_no_claim(
    rig: Rig, own_lease: bool
) -> None:
    """After a hard time limit the message is over: nobody would come to free the claim."""
    message = call("m1", own_lease=own_lease)
    rig.run(message, "n1")
    rig.shorten(message, "n1")
    assert rig.abandon(message, "n1")
    assert rig.held(message) == ""
    assert not rig.raw.exists(rig.lease_name(message))
    assert rig.record(message) == "done 1 0 n1"


@SCOPES
def test_shorten_completes_the_message_and_leaves_the_dying_process_its_lease(
    rig: Rig, own_lease: bool
) -> None:
    """At a hard time limit the child still lives: freed at once, two would run."""
    message = call("m1", own_lease=own_lease)
    rig.run(message, "n1")
    assert rig.shorten(message, "n1", lease_ttl=2)
    assert rig.record(message) == "done 1 0 n1"
    assert 0 < rig.raw.pttl(rig.lease_name(message)) <= 2000
    other = rig.start(call("m2", own_lease=own_lease), "n2").answer
    assert other is (Answer.ACQUIRED if own_lease else Answer.CONFLICT)


def test_shorten_never_lengthens(rig: Rig) -> None:
    """A lease that is about to end may not be kept by its process's death."""
    rig.start(call("m1"), "n1", lease_ttl=1.0)
    rig.shorten(call("m1"), "n1", lease_ttl=20)
    assert rig.raw.pttl(rig.lease_name(call("m1"))) <= 1000


def test_shorten_leaves_another_lease_as_it_is(rig: Rig) -> None:
    """G6; the message is settled all the same."""
    rig.run(call("m1"), "n1")
    rig.end_by_itself(call("m1"))
    rig.run(call("m2"), "n2")
    assert not rig.shorten(call("m1"), "n1", lease_ttl=1)
    assert rig.raw.pttl(rig.lease_name(call("m2"))) > 10_000
    assert rig.start(call("m1"), "n3").answer is Answer.ALREADY_COMPLETED
