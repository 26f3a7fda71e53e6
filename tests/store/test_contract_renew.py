"""What a renewal answers: the lease is kept, taken up again, or given up for good."""

import pytest

from onceguard.rules.messages import partition
from onceguard.store.contract import Renewed
from tests.harness.waiting import eventually
from tests.store.rig import KEY, LEASE_TTL, Rig, call, token_of

SCOPES = pytest.mark.parametrize("own_lease", [False, True], ids=["key", "message"])


@SCOPES
def test_a_renewal_gives_the_lease_and_the_messages_record_new_lives(
    rig: Rig, own_lease: bool
) -> None:
    """A run longer than completed_for must not outlive the memory of its own message."""
    message = call("m1", own_lease=own_lease)
    record = rig.run(message, "n1")
    note = rig.names(message).record("m1")
    rig.raw.pexpire(rig.lease_name(message), 1000)
    rig.raw.pexpire(note, 1000)
    assert rig.renew(message, "n1", record) == (Renewed.RENEWED, record)
    assert rig.raw.pttl(rig.lease_name(message)) > (LEASE_TTL - 5) * 1000
    assert rig.raw.pttl(note) > 60_000


def test_the_first_renewal_learns_the_record(rig: Rig) -> None:
    """The main process never saw the start: its child did."""
    record = rig.run(call("m1"), "n1")
    assert rig.renew(call("m1"), "n1", "") == (Renewed.RENEWED, record)


def test_a_renewal_before_the_start_is_absent_and_takes_nothing(rig: Rig) -> None:
    """A delivery that waits for a pool process is in the list of active ones already."""
    assert rig.renew(call("m1"), "n1", "") == (Renewed.ABSENT, "")
    rig.claim(call("m1"))
    assert rig.renew(call("m1"), "n1", "")[0] is Renewed.ABSENT
    assert rig.held(call("m1")) == "claim m1"


def test_the_lease_of_another_delivery_is_not_renewed(rig: Rig) -> None:
    """G6: owners are compared by nonce, for a redelivered copy has the same ids."""
    rig.run(call("m1"), "n1")
    rig.raw.pexpire(rig.lease_name(call("m1")), 1000)
    assert rig.renew(call("m1"), "n2", "")[0] is Renewed.ABSENT
    assert rig.raw.pttl(rig.lease_name(call("m1"))) <= 1000


@SCOPES
def test_an_ended_lease_is_taken_up_again_if_nobody_ran(rig: Rig, own_lease: bool) -> None:
    """Rule 6: a stall that hurt nobody goes on, with its token and attempt."""
    message = call("m1", own_lease=own_lease)
    record = rig.run(message, "n1")
    rig.end_by_itself(message)
    assert rig.renew(message, "n1", record) == (Renewed.RETAKEN, record)
    assert rig.start(message, "n2").answer == "duplicate_delivery"
    assert rig.finish(message, "n1")


def test_an_expired_lease_is_taken_up_again(rig: Rig) -> None:
    """The same with the server's own expiry, which the other tests imitate."""
    record = rig.run(call("m1"), "n1")
    rig.raw.pexpire(rig.lease_name(call("m1")), 20)
    eventually(lambda: not rig.held(call("m1")), "the lease had ended", timeout=2)
    assert rig.renew(call("m1"), "n1", record) == (Renewed.RETAKEN, record)


def test_an_ended_lease_is_taken_up_again_over_anothers_claim(rig: Rig) -> None:
    """A claim is no run: the call that is queued waits or is skipped at its start."""
    record = rig.run(call("m1"), "n1")
    rig.end_by_itself(call("m1"))
    assert rig.claim(call("m2")) is None
    assert rig.renew(call("m1"), "n1", record) == (Renewed.RETAKEN, record)
    assert rig.start(call("m2"), "n2").answer == "conflict"


@SCOPES
def test_a_lease_is_taken_up_again_on_an_emptied_server(rig: Rig, own_lease: bool) -> None:
    """A restart without persistence must not end every run; attempts go on counting."""
    message = call("m1", own_lease=own_lease)
    rig.run(message, "n0")
    rig.end_by_itself(message)
    record = rig.run(message, "n1")
    rig.raw.flushall()
    assert rig.renew(message, "n1", record) == (Renewed.RETAKEN, record)
    assert rig.record(message) == "open 2 0 n1"
    assert rig.start(message, "n2").answer == "duplicate_delivery"


def test_a_lease_is_lost_to_a_running_successor(rig: Rig) -> None:
    """G9: the answer names who has it, for the log."""
    record = rig.run(call("m1"), "n1")
    rig.end_by_itself(call("m1"))
    successor = rig.run(call("m2"), "n2")
    assert rig.renew(call("m1"), "n1", record) == (Renewed.LOST, successor)
    assert rig.held(call("m2")) == "lease m2"


@pytest.mark.parametrize("claimed", [False, True], ids=["unclaimed", "claimed before"])
def test_a_lease_is_lost_to_a_successor_that_has_ended(rig: Rig, claimed: bool) -> None:
    """A stalls, B runs and finishes, the key is free: A's token is old all the same (G9)."""
    record = rig.run(call("m1"), "n1")
    rig.end_by_itself(call("m1"))
    if claimed:
        rig.claim(call("m2"))
    rig.run(call("m2"), "n2")
    rig.finish(call("m2"), "n2")
    assert rig.renew(call("m1"), "n1", record) == (Renewed.LOST, "")
    rig.claim(call("m3"))
    assert rig.renew(call("m1"), "n1", record)[0] is Renewed.LOST
    assert rig.held(call("m3")) == "claim m3"


def test_a_successor_takes_its_own_lease_up_again(rig: Rig) -> None:
    """B that followed a dead A may stall as well; only older tokens are shut out."""
    rig.run(call("m1"), "n1")
    rig.end_by_itself(call("m1"))
    record = rig.run(call("m2"), "n2")
    rig.end_by_itself(call("m2"))
    assert rig.renew(call("m2"), "n2", record) == (Renewed.RETAKEN, record)


def test_every_later_holder_shuts_out_the_first(rig: Rig) -> None:
    """A dead, B dead, C over: neither A nor B may come back, though C was last."""
    first = rig.run(call("m1"), "n1")
    rig.end_by_itself(call("m1"))
    second = rig.run(call("m2"), "n2")
    rig.end_by_itself(call("m2"))
    rig.run(call("m3"), "n3")
    rig.finish(call("m3"), "n3")
    assert rig.renew(call("m1"), "n1", first)[0] is Renewed.LOST
    assert rig.renew(call("m2"), "n2", second)[0] is Renewed.LOST


@SCOPES
def test_a_lease_is_lost_to_a_later_delivery_of_its_message(rig: Rig, own_lease: bool) -> None:
    """The redelivered copy ran: by nonce, for message and task are the same."""
    message = call("m1", own_lease=own_lease)
    record = rig.run(message, "n1")
    rig.end_by_itself(message)
    later = rig.run(message, "n2")
    assert rig.renew(message, "n1", record) == (Renewed.LOST, later)
    rig.abandon(message, "n2", unique_for=0)
    assert rig.renew(message, "n1", record) == (Renewed.LOST, "")


def test_on_an_emptied_server_a_running_successor_keeps_its_lease(rig: Rig) -> None:
    """Nothing but the lease itself says that the key has passed on: the rest is lost."""
    record = rig.run(call("m1"), "n1")
    rig.raw.flushall()
    successor = rig.run(call("m2"), "n2")
    assert rig.renew(call("m1"), "n1", record) == (Renewed.LOST, successor)
    assert rig.held(call("m2")) == "lease m2"


@SCOPES
def test_on_an_emptied_server_a_later_delivery_shuts_out_the_first(
    rig: Rig, own_lease: bool
) -> None:
    """The message's record names who started last."""
    message = call("m1", own_lease=own_lease)
    record = rig.run(message, "n1")
    rig.raw.flushall()
    rig.run(message, "n2")
    rig.abandon(message, "n2", unique_for=0)
    assert rig.renew(message, "n1", record) == (Renewed.LOST, "")


@SCOPES
def test_the_lease_of_a_completed_message_has_ended(rig: Rig, own_lease: bool) -> None:
    """A tick that crosses the run's end must not bring its lease back."""
    message = call("m1", own_lease=own_lease)
    record = rig.run(message, "n1")
    rig.finish(message, "n1")
    assert rig.renew(message, "n1", record) == (Renewed.ENDED, "")
    assert not rig.raw.exists(rig.lease_name(message))


def test_an_abandoned_lease_has_ended(rig: Rig) -> None:
    """Its message is claimed again; the tick must not run it back into a lease."""
    record = rig.run(call("m1"), "n1")
    rig.abandon(call("m1"), "n1")
    assert rig.renew(call("m1"), "n1", record) == (Renewed.ENDED, "")
    assert rig.held(call("m1")) == "claim m1"


def test_scope_until_executing_loses_nothing_to_a_neighbours_redelivery(rig: Rig) -> None:
    """
    Runs of different messages do not follow one another in this scope.

    m0 and m1 run side by side; m0's worker dies and m0 runs again; m1's lease ends in a
    pause of the server. Nobody but m1 ran m1: it must be taken up again.
    """
    first, second = call("m0", own_lease=True), call("m1", own_lease=True)
    rig.run(first, "n0")
    record = rig.run(second, "n1")
    rig.end_by_itself(first)
    rig.run(first, "n2")
    rig.end_by_itself(second)
    assert rig.renew(second, "n1", record) == (Renewed.RETAKEN, record)


def test_a_retake_lists_the_lease_again(rig: Rig) -> None:
    """After a flush the index is gone as well."""
    record = rig.run(call("m1"), "n1")
    rig.raw.flushall()
    rig.renew(call("m1"), "n1", record)
    assert rig.listed(call("m1")) == {f"{KEY} lease"}


def test_one_call_renews_the_leases_of_many_partitions_in_order(rig: Rig) -> None:
    """The worker matches answers to runs by place alone."""
    calls = [call(f"m{number}", key=f"task({number})") for number in range(40)]
    assert len({partition(each.key) for each in calls}) > 8
    records = [rig.run(each, f"n{each.message_id}") for each in calls]
    rig.finish(calls[3], "nm3")
    rig.end_by_itself(calls[5])
    leases = [
        rig.lease(each, f"n{each.message_id}", record)
        for each, record in zip(calls, records, strict=True)
    ]
    answers = rig.store.renew(leases)
    assert [a for a, _ in answers].count(Renewed.RENEWED) == 38
    assert answers[3] == (Renewed.ENDED, "")
    assert answers[5] == (Renewed.RETAKEN, records[5])
    assert [r for a, r in answers if r] == [r for n, r in enumerate(records) if n != 3]
    assert rig.store.renew([]) == []


def test_renewal_is_one_call_for_each_partition(rig: Rig) -> None:
    """A hundred children must not cost a hundred round trips a tick (FACTS, Renewal)."""
    calls = [call(f"m{n}", key=f"task({n})") for n in range(100)]
    leases = [rig.lease(each, "n", rig.run(each, "n")) for each in calls]
    rig.raw.config_resetstat()
    rig.store.renew(leases)
    assert rig.raw.info("commandstats")["cmdstat_evalsha"]["calls"] <= 16


def test_old_ends_leave_the_index_after_a_day(rig: Rig) -> None:
    """Leases of dead workers are listed for as long as `explain` may ask, not for ever."""
    rig.run(call("m1"), "n1")
    index = rig.names(call("m1")).index
    rig.raw.zadd(index, {"long-dead() lease": (rig.now() - 2 * 86400) * 1000})
    rig.renew(call("m1"), "n1", "")
    assert rig.listed(call("m1")) == {f"{KEY} lease"}


def test_tokens_of_a_retaken_lease_stay_below_a_successors(rig: Rig) -> None:
    """The retaken record carries its first token, so a later lease still has a higher one."""
    record = rig.run(call("m1"), "n1")
    rig.end_by_itself(call("m1"))
    _, retaken = rig.renew(call("m1"), "n1", record)
    rig.finish(call("m1"), "n1")
    assert token_of(rig.run(call("m2"), "n2")) > token_of(retaken)
