"""
What a start answers, in the order of DESIGN 6.

Every row of that table has a test, and every two rows that can hold at once have one that
shows which comes first.
"""

import pytest

from onceguard.store.contract import Answer, Message, Started
from tests.harness.waiting import eventually
from tests.store.rig import KEY, Rig, call, record_of, token_of

SCOPES = pytest.mark.parametrize("own_lease", [False, True], ids=["key", "message"])


def who(started: Started) -> tuple[str, str]:
    """Message id and nonce of whoever the answer names."""
    assert started.held is not None
    return started.held.holder.message_id, started.held.holder.nonce


def retry_of(parent: Message) -> Message:
    """The first retry of a message: same key and task."""
    return call(f"{parent.message_id}.r1", task_id=parent.task_id, key=parent.key)


@SCOPES
def test_a_free_key_is_acquired_with_attempt_token_and_time(rig: Rig, own_lease: bool) -> None:
    """What `self.request.once` shows comes from this answer."""
    started = rig.start(call("m1", own_lease=own_lease), "n1", lease_ttl=30)
    assert started.answer is Answer.ACQUIRED
    assert started.held is not None
    assert started.held.holder.state == "lease"
    assert (started.held.holder.attempt, started.starts, started.generation) == (1, 1, 0)
    assert started.held.time_left == 30
    assert started.held.holder.fencing_token > 1_600_000_000_000_000


@SCOPES
def test_the_same_delivery_asking_again_gets_the_same_lease(rig: Rig, own_lease: bool) -> None:
    """Row 1: a lost reply must neither count as a start nor look like another delivery."""
    message = call("m1", own_lease=own_lease)
    first, again = rig.start(message, "n1"), rig.start(message, "n1")
    assert record_of(again) == record_of(first)
    assert again.starts == 1


def test_row_1_comes_before_completion_and_the_cap(rig: Rig) -> None:
    """The reply that got lost said `acquired`, whatever happened to the record since."""
    first = record_of(rig.start(call("m1"), "n1", max_deliveries=1))
    assert record_of(rig.start(call("m1"), "n1", max_deliveries=1)) == first
    rig.shorten(call("m1"), "n1")
    assert record_of(rig.start(call("m1"), "n1", max_deliveries=1)) == first


def test_a_completed_message_is_not_started_again(rig: Rig) -> None:
    """Row 2 is G4."""
    rig.run(call("m1"), "n1")
    rig.finish(call("m1"), "n1")
    again = rig.start(call("m1"), "n2")
    assert (again.answer, again.held) == (Answer.ALREADY_COMPLETED, None)
    assert rig.held(call("m1")) == ""


def test_completion_comes_before_every_kind_of_holder_and_the_cap(rig: Rig) -> None:
    """Row 2 before 3, 4, 5 and 6: a finished message is acked, never put off or failed."""
    rig.run(call("m1"), "n1")
    rig.shorten(call("m1"), "n1")  # completed, its lease still stands
    assert rig.start(call("m1"), "n2").answer is Answer.ALREADY_COMPLETED
    rig.finish(call("m1"), "n1", retry="m1.r1")  # completed, its retry is claimed
    assert rig.start(call("m1"), "n2").answer is Answer.ALREADY_COMPLETED
    rig.run(call("m2"), "n3")  # completed, another call runs
    answer = rig.start(call("m1"), "n2", max_deliveries=1).answer
    assert answer is Answer.ALREADY_COMPLETED


@SCOPES
def test_a_second_delivery_of_a_running_message_is_a_duplicate(
    rig: Rig, own_lease: bool
) -> None:
    """Row 3 is G3: it must be told apart from another call, for it may not be skipped."""
    message = call("m1", own_lease=own_lease)
    rig.run(message, "n1")
    rig.put_off(message, 4)
    again = rig.start(message, "n2")
    assert again.answer is Answer.DUPLICATE_DELIVERY
    assert who(again) == ("m1", "n1")
    assert again.held is not None
    assert 25 < again.held.time_left <= 30
    assert (again.generation, again.starts) == (4, 1)


def test_a_duplicate_delivery_is_not_rejected_at_the_cap(rig: Rig) -> None:
    """Row 3 before 5: the last allowed start is still running and may succeed."""
    rig.start(call("m1"), "n1", max_deliveries=1)
    again = rig.start(call("m1"), "n2", max_deliveries=1)
    assert again.answer is Answer.DUPLICATE_DELIVERY


def test_a_retry_waits_for_the_end_of_the_run_that_published_it(rig: Rig) -> None:
    """Row 4: a skip would overwrite the task's result (same task id)."""
    rig.run(call("m1"), "n1")
    early = rig.start(retry_of(call("m1")), "n2", parent_id="m1")
    assert early.answer is Answer.DUPLICATE_DELIVERY
    assert who(early) == ("m1", "n1")
    assert rig.record(call("m1")).startswith("open ")


def test_a_claim_of_the_same_task_refuses_no_start(rig: Rig) -> None:
    """
    Row 4 is for leases: m1's process died after publishing its retry and left m1's claim.

    Put off for the rest of that claim, the retry would come an hour late.
    """
    rig.claim(call("m1"))
    assert rig.start(retry_of(call("m1")), "n2", parent_id="m1").answer is Answer.ACQUIRED
    assert rig.start(call("m1"), "n3").answer is Answer.ALREADY_COMPLETED


def test_the_same_task_in_the_way_is_not_a_conflict_nor_the_cap(rig: Rig) -> None:
    """Row 4 before 5 and 6."""
    rig.run(retry_of(call("m1")), "n1")
    late = rig.start(call("m1"), "n2", max_deliveries=0)
    assert late.answer is Answer.DUPLICATE_DELIVERY


@SCOPES
def test_a_message_that_was_started_too_often_is_rejected(rig: Rig, own_lease: bool) -> None:
    """Row 5 is G7; the claim that its last process left does not matter."""
    message = call("m1", own_lease=own_lease)
    for number in (1, 2):
        assert rig.start(message, f"n{number}", max_deliveries=2).starts == number
        rig.abandon(message, f"n{number}", unique_for=0 if own_lease else 60)
    given_up = rig.start(message, "n3", max_deliveries=2)
    assert (given_up.answer, given_up.starts) == (Answer.REJECTED, 2)
    assert rig.record(message) == "open 2 0 -n2"


def test_a_rejected_message_stays_open_until_its_failure_was_told(rig: Rig) -> None:
    """Rule 7: a crash between giving up and storing the failure must not swallow it."""
    rig.run(call("m1"), "n1")
    rig.abandon(call("m1"), "n1")
    for nonce in ("n2", "n3"):
        answer = rig.start(call("m1"), nonce, max_deliveries=1).answer
        assert answer is Answer.REJECTED
    rig.finish(call("m1"), "n3")
    assert rig.held(call("m1")) == ""
    answer = rig.start(call("m1"), "n4", max_deliveries=1).answer
    assert answer is Answer.ALREADY_COMPLETED


def test_rejection_comes_before_a_conflict(rig: Rig) -> None:
    """Row 5 before 6: waiting for another call only to be given up helps nobody."""
    rig.run(call("m1"), "n1")
    rig.abandon(call("m1"), "n1")
    rig.run(call("m2"), "n2")
    again = rig.start(call("m1"), "n3", max_deliveries=1)
    assert again.answer is Answer.REJECTED
    assert rig.held(call("m2")) == "lease m2"


def test_another_running_call_is_a_conflict(rig: Rig) -> None:
    """Row 6 is G2; starts and generation say whether the message may be skipped."""
    rig.run(call("m1"), "n1")
    rig.put_off(call("m2"), 3)
    refused = rig.start(call("m2"), "n2")
    assert refused.answer is Answer.CONFLICT
    assert who(refused) == ("m1", "n1")
    assert refused.held is not None
    assert 25 < refused.held.time_left <= 30
    assert (refused.generation, refused.starts) == (3, 0)


def test_a_refused_start_changes_nothing(rig: Rig) -> None:
    """A refused delivery is no attempt: the cap must count bodies."""
    rig.run(call("m1"), "n1")
    before = everything(rig)
    rig.start(call("m2"), "n2")
    rig.start(call("m1"), "n3")
    assert everything(rig) == before


def everything(rig: Rig) -> dict[str, set[str]]:
    """All that Redis holds, without times to live."""
    index = rig.names(call("m1")).index
    keys = {str(key) for key in rig.raw.scan_iter(count=1000)} - {index}
    return {index: rig.listed(call("m1"))} | {key: {str(rig.raw.get(key))} for key in keys}


def test_a_start_keeps_the_generation_of_its_message(rig: Rig) -> None:
    """Rule 1: copies older than the newest must go on being acked while it runs."""
    rig.put_off(call("m1"), 2)
    assert rig.start(call("m1"), "n1").generation == 2
    assert rig.start(call("m1"), "n2").generation == 2


@pytest.mark.parametrize("whose", ["its own", "another's"])
def test_a_claim_never_refuses_a_start(rig: Rig, whose: str) -> None:
    """Rule 2: a claim's message may never have been sent, or never come."""
    rig.claim(call("m1" if whose == "its own" else "m2"))
    assert rig.start(call("m1"), "n1").answer is Answer.ACQUIRED
    assert rig.held(call("m1")) == "lease m1"
    assert rig.listed(call("m1")) == {f"{KEY} lease"}


def test_scope_until_executing_frees_its_own_claim_at_start(rig: Rig) -> None:
    """The next equal call may be queued while this one runs."""
    rig.claim(call("m1", own_lease=True))
    assert rig.start(call("m1", own_lease=True), "n1").answer is Answer.ACQUIRED
    assert rig.claim(call("m2", own_lease=True)) is None
    assert rig.start(call("m2", own_lease=True), "n2").answer is Answer.ACQUIRED


def test_scope_until_executing_leaves_another_claim_standing(rig: Rig) -> None:
    """m1 comes again while m2 is queued: m2's claim must go on refusing m3."""
    rig.claim(call("m2", own_lease=True))
    rig.start(call("m1", own_lease=True), "n1")
    assert rig.claim(call("m3", own_lease=True)) is not None


def test_attempts_count_the_starts_of_a_message(rig: Rig) -> None:
    """Poison detection counts bodies that began, by whatever end they met."""
    for number in (1, 2, 3):
        started = rig.start(call("m1"), f"n{number}")
        assert started.held is not None
        assert started.held.holder.attempt == started.starts == number
        if number == 1:
            rig.abandon(call("m1"), "n1")
        else:
            rig.end_by_itself(call("m1"))
    assert rig.start(call("m2"), "n9").starts == 1


def test_a_started_retry_completes_its_parent(rig: Rig) -> None:
    """Rule 4: else a parent whose worker died before the ack would run beside its retry."""
    rig.run(call("m1"), "n1")
    rig.end_by_itself(call("m1"))
    started = rig.start(retry_of(call("m1")), "n2", parent_id="m1")
    assert started.answer is Answer.ACQUIRED
    assert rig.start(call("m1"), "n3").answer is Answer.ALREADY_COMPLETED


def test_a_refused_retry_leaves_its_parent_open(rig: Rig) -> None:
    """Only a retry that runs proves that the parent is over."""
    rig.run(call("m2"), "n2")
    refused = rig.start(retry_of(call("m1")), "n1", parent_id="m1")
    assert refused.answer is Answer.CONFLICT
    assert rig.record(call("m1")) == ""


def test_fencing_tokens_grow(rig: Rig) -> None:
    """G9: with each lease of a key, by whichever message and end."""
    tokens = []
    for number in range(20):
        message = call(f"m{number % 3}")
        tokens.append(token_of(rig.run(message, f"n{number}")))
        rig.abandon(message, f"n{number}") if number % 2 else rig.end_by_itself(message)
        if number % 3 == 2:
            for settled in range(3):
                rig.raw.delete(rig.names(message).record(f"m{settled}"))
    assert tokens == sorted(set(tokens))


def test_fencing_tokens_grow_when_the_servers_clock_stands_still(rig: Rig) -> None:
    """A counter ahead of the clock wins: the clock may have stepped back a little."""
    before = token_of(rig.run(call("m1"), "n1"))
    rig.raw.set(rig.names(call("m1")).fence, before + 10**12)
    rig.end_by_itself(call("m1"))
    assert token_of(rig.run(call("m1"), "n2")) == before + 10**12 + 1


def test_fencing_tokens_grow_though_the_server_lost_everything(rig: Rig) -> None:
    """A counter alone would begin at 1 again, and let a paused holder write."""
    before = token_of(rig.run(call("m1"), "n1"))
    rig.raw.flushall()
    assert token_of(rig.run(call("m2"), "n2")) > before


def test_a_lease_ends_by_itself(rig: Rig) -> None:
    """G5: nobody renews a dead worker's lease; the server's own clock ends it."""
    rig.start(call("m1"), "n1", lease_ttl=0.1)
    assert rig.start(call("m2"), "n2").answer is Answer.CONFLICT
    eventually(
        lambda: rig.start(call("m2"), "n2").answer is Answer.ACQUIRED,
        "the dead lease had ended",
        timeout=2,
    )


def test_a_task_id_may_hold_spaces(rig: Rig) -> None:
    """Task ids are the user's to choose; the same task must still be recognised."""
    parent = call("m1", task_id="import of  day 7 ")
    rig.run(parent, "n1")
    late = rig.start(retry_of(parent), "n2", parent_id="m1")
    assert late.answer is Answer.DUPLICATE_DELIVERY
    assert late.held is not None
    assert late.held.holder.task_id == "import of  day 7 "
    assert rig.start(call("m3", task_id="day 7 "), "n3").answer is Answer.CONFLICT
