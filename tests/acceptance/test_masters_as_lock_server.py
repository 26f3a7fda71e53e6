"""Locks on five independent masters: a minority of them may die, hang or forget."""

from collections.abc import Iterator

import pytest

from tests.harness.crowd import two_with_one_lock_server
from tests.harness.masters import Masters
from tests.harness.running import running
from tests.harness.site import LEASE, SLACK, redis_site
from tests.harness.waiting import eventually, stays

LONG_LEASE = 5.0
"""Renewed early enough that hung masters, which cost time, can't make it end."""


@pytest.fixture
def masters(redis_binary: str) -> Iterator[Masters]:
    """Five servers, apart from the broker."""
    assert redis_binary
    yield from running(Masters())


def test_a_run_keeps_its_lease_while_any_two_are_away(masters: Masters, name: str) -> None:
    """
    Two die, come back empty, and two others hang.

    By then the lease has been renewed, which puts it on all that answer.
    """
    conf = {"once_url": masters.urls}
    with redis_site(conf=conf, once={"lease_ttl": LONG_LEASE}) as site:
        worker = site.start()
        result = site.publish("held", name)
        run = site.ledger.await_begin(name)
        masters.kill(0, 1)
        assert site.refusal("held", name).holder.fencing_token == run.fencing_token
        masters.restart_empty(0, 1)
        stays(lambda: site.refusal("held", name), "it is held", during=LONG_LEASE)
        masters.pause(2, 3)
        stays(lambda: site.refusal("held", name), "it is held", during=LONG_LEASE)
        masters.resume(2, 3)
        site.open_gate(name)
        site.await_state(result, "SUCCESS")
        second = site.await_accepted("held", name, timeout=SLACK)
        site.await_state(second, "SUCCESS")
        assert [each.task_id for each in site.ledger.runs(name)] == [result.id, second.id]
        assert not site.ledger.lines("once_lease_lost")
        assert worker.alive


def test_a_run_learns_that_a_majority_forgot_it_and_its_successors_token_is_higher(
    masters: Masters, name: str
) -> None:
    """What Redlock does not promise, and what the fencing token is for."""
    with redis_site(conf={"once_url": masters.urls}) as site:
        stalled = site.start(concurrency=1)
        site.publish("checked", name)
        first = site.ledger.await_begin(name)
        stalled.freeze()
        masters.restart_empty(0, 1, 2)
        site.start(concurrency=1)
        site.await_accepted("checked", name)
        second = site.ledger.await_begin(name, 2)
        assert second.fencing_token > first.fencing_token
        site.open_gate(name)
        stalled.thaw()
        eventually(lambda: len(site.ledger.ended(name)) == 2, "both came to their end")
        hows = {run.fencing_token: run.how for run in site.ledger.runs(name)}
        assert hows == {first.fencing_token: "LeaseLost", second.fencing_token: "ok"}


def test_without_a_majority_a_publish_fails_and_a_message_waits(
    masters: Masters, name: str
) -> None:
    """Nobody is let in by a minority; when a majority is back, what was sent runs once."""
    from onceguard import StoreUnavailable  # noqa: PLC0415 - the harness works without

    with redis_site(conf={"once_url": masters.urls}) as site:
        result = site.publish("work", name)
        masters.kill(0, 1, 2)
        with pytest.raises(StoreUnavailable, match=r"2 of 5 masters answered"):
            site.publish("work", f"{name}-other")
        site.start()
        stays(lambda: not site.ledger.runs(name), "it waits", during=LEASE)
        for number in (0, 1, 2):
            masters.servers[number].start()
        site.await_state(result, "SUCCESS")
        assert len(site.ledger.runs(name)) == 1


def test_a_message_that_completed_stays_completed_though_two_forgot(
    masters: Masters, name: str
) -> None:
    """G4: the memory of finished messages is on all masters, too."""
    with redis_site(conf={"once_url": masters.urls}) as site:
        worker = site.start()
        result = site.publish("held", name)
        site.ledger.await_begin(name)
        message = site.broker.capture(result.id)
        site.open_gate(name)
        site.await_state(result, "SUCCESS")
        site.await_drained()
        masters.restart_empty(3, 4)
        site.broker.deliver(message)
        site.await_drained()
        assert len(site.ledger.runs(name)) == 1
        assert worker.alive


def test_two_beats_send_each_tick_once_while_two_masters_are_away(
    masters: Masters, name: str
) -> None:
    """A tick takes two votes: for the firing, and for the key of its call."""
    with two_with_one_lock_server(name, masters.urls) as (_, post, one):
        post.await_letters(6)
        masters.kill(0, 1)
        post.await_letters(12)
        one.kill()
        post.await_letters(18)
