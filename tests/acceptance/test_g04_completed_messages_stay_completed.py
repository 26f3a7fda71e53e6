"""G4: a message whose run completed is not run again when it is redelivered."""

import pytest

from tests.harness.site import LEASE, SLACK, Site, rabbit_site, redis_site
from tests.harness.waiting import eventually, stays


def deliver_again_after_the_end(site: Site, name: str) -> None:
    """Run a call to its end, then let its message arrive once more."""
    result = site.publish("work", name, 1.5)
    message = site.broker.capture(result.id)
    site.start(concurrency=1)
    site.await_state(result, "SUCCESS")
    site.broker.deliver(message)
    eventually(lambda: site.ledger.lines("once_already_completed"), "it was recognised")
    site.await_drained()
    assert len(site.ledger.runs(name)) == 1
    assert result.get(timeout=5) == name
    assert not site.refusal("work", name), "A redelivery must not take the key."


@pytest.mark.parametrize("visibility_timeout", [1, 3600])
def test_a_completed_message_is_not_run_again_on_redis(
    redis_binary: str, name: str, visibility_timeout: int
) -> None:
    """A worker that dies between the end of a run and its ack leaves the message behind."""
    assert redis_binary
    with redis_site(visibility_timeout=visibility_timeout) as site:
        deliver_again_after_the_end(site, name)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_completed_message_is_not_run_again_on_rabbitmq(
    rabbitmq_url: str, redis_binary: str, name: str, queue_type: str
) -> None:
    """A connection that breaks before the ack has the same effect."""
    assert redis_binary
    with rabbit_site(rabbitmq_url, queue_type) as site:
        deliver_again_after_the_end(site, name)


def test_a_message_overdue_for_long_is_not_run_again(redis_binary: str, name: str) -> None:
    """
    A message that was restored while it ran comes at any time after the end.

    Its completion must be remembered for longer than it takes to forget one that
    nobody can ask for.
    """
    assert redis_binary
    with redis_site(visibility_timeout=1, conf={"once_keep_visible": False}) as site:
        result = site.publish("work", name, 2.0)
        message = site.broker.capture(result.id)
        site.start(concurrency=1)
        site.await_state(result, "SUCCESS")
        stays(lambda: len(site.ledger.runs(name)) == 1, "one run", during=LEASE + SLACK / 2)
        site.broker.deliver(message)
        eventually(lambda: site.ledger.lines("once_already_completed"), "it was recognised")
        assert len(site.ledger.runs(name)) == 1


def test_a_failed_run_is_completed_too(site: Site, name: str) -> None:
    """FAILURE is an end: running again is for retries to decide, not for the broker."""
    result = site.publish("fail", name)
    message = site.broker.capture(result.id)
    site.start(concurrency=1)
    site.await_state(result, "FAILURE")
    site.broker.deliver(message)
    eventually(lambda: site.ledger.lines("once_already_completed"), "it was recognised")
    assert len(site.ledger.runs(name)) == 1
    assert result.state == "FAILURE"
