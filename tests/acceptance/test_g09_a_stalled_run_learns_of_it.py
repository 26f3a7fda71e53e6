"""G9: a run that stalls past its lease learns of it, and its token is the lower one."""

import os
import signal

import pytest

from tests.harness.redis_server import RedisServer
from tests.harness.site import LEASE, SLACK, Site, redis_site
from tests.harness.waiting import eventually


def stall_and_ask(site: Site, name: str, *, pool: str = "prefork") -> None:
    """
    Freeze a run until another has its key; both then ask before their side effect.

    The gate opens while the first is frozen: it asks the moment it wakes up, before
    anything could have told it.
    """
    stalled = site.start(concurrency=1, pool=pool)
    site.publish("checked", name)
    first = site.ledger.await_begin(name)
    stalled.freeze()
    site.start(concurrency=1, pool=pool)
    site.await_accepted("checked", name, timeout=LEASE + SLACK)
    second = site.ledger.await_begin(name, 2)
    site.open_gate(name)
    site.ledger.await_end(name)
    stalled.thaw()
    eventually(lambda: len(site.ledger.ended(name)) == 2, "both came to their end")
    hows = {run.fencing_token: run.how for run in site.ledger.runs(name)}
    assert second.fencing_token > first.fencing_token
    assert hows == {first.fencing_token: "LeaseLost", second.fencing_token: "ok"}
    answers = {
        line.fact("fence"): line.fact("lost") for line in site.ledger.lines("asked", name)
    }
    assert answers == {str(first.fencing_token): "True", str(second.fencing_token): "False"}
    assert len(site.ledger.lines("effect", name)) == 1


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_stalled_run_that_asks_is_told_before_its_side_effect(
    site: Site, name: str, pool: str
) -> None:
    """Only the run itself can stop it: its process was stopped, not its code."""
    stall_and_ask(site, name, pool=pool)


def test_a_successors_token_is_higher_though_the_store_forgot_everything(
    own_redis_server: RedisServer, name: str
) -> None:
    """A counter that starts anew with the server would hand the successor a lower one."""
    with redis_site(conf={"once_url": own_redis_server.url}) as site:
        stalled = site.start(concurrency=1)
        site.publish("checked", name)
        first = site.ledger.await_begin(name)
        stalled.freeze()
        own_redis_server.restart_empty()
        site.start(concurrency=1)
        site.await_accepted("checked", name)
        second = site.ledger.await_begin(name, 2)
        assert second.fencing_token > first.fencing_token
        os.kill(second.pid, signal.SIGSTOP)  # until the first has asked
        site.open_gate(name)
        stalled.thaw()
        site.ledger.await_end(name)
        os.kill(second.pid, signal.SIGCONT)
        eventually(lambda: len(site.ledger.ended(name)) == 2, "both came to their end")
        hows = {run.fencing_token: run.how for run in site.ledger.runs(name)}
        assert hows == {first.fencing_token: "LeaseLost", second.fencing_token: "ok"}


def test_a_run_that_was_not_stalled_is_told_nothing(site: Site, name: str) -> None:
    """A check that cries wolf would stop good work."""
    site.start()
    result = site.publish("checked", name)
    site.ledger.await_begin(name)
    site.open_gate(name)
    site.await_state(result, "SUCCESS")
    assert site.ledger.lines("effect", name)[0].fact("lost") == "False"


def test_tokens_grow_from_run_to_run(site: Site, name: str) -> None:
    """Whoever is written to can tell the newer from the older, whatever happened between."""
    site.start()
    for nth in range(1, 6):
        site.await_accepted("work", name)
        site.ledger.await_end(name, nth)
    tokens = [run.fencing_token for run in site.ledger.runs(name)]
    assert tokens == sorted(set(tokens))
