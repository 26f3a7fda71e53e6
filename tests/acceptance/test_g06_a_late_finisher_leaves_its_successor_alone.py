"""G6: the lock of a live holder is never freed or taken by anyone else's end."""

import base64
import json
from typing import Any

import pytest

from tests.harness.brokers import Message
from tests.harness.site import LEASE, SLACK, Site
from tests.harness.waiting import eventually, stays

SUCCESSORS = ["another-call", "another-delivery"]


@pytest.mark.parametrize("successor", SUCCESSORS)
def test_a_worker_stalled_past_its_lease_does_not_free_its_successors_lock(
    site: Site, name: str, successor: str
) -> None:
    """
    The classic double run: A stalls, B starts, A wakes up and frees B's lock, C starts.

    The successor may be another call, or another delivery of the very same message:
    then only the delivery's nonce tells the two apart.
    """
    stalled = site.start(concurrency=1)
    first = site.publish("work", name, 1.0)
    site.ledger.await_begin(name)
    message = site.broker.capture(first.id)
    stalled.freeze()
    other = site.start(concurrency=1)
    if successor == "another-call":
        second = site.await_accepted("work", name, 2.5 * LEASE + SLACK, timeout=LEASE + SLACK)
    else:
        second = first
        eventually(lambda: not held(site, first.id), "the lease ended")
        site.broker.deliver(with_args(message, name, 2.5 * LEASE + SLACK))
    run = site.ledger.await_begin(name, 2, timeout=LEASE + SLACK)
    stalled.thaw()
    late = site.ledger.await_end(name)
    assert late.pid != run.pid
    stays(lambda: holds(site, name, run.fencing_token), "B held its key", during=1.5 * LEASE)
    assert other.alive
    assert stalled.alive
    site.ledger.await_end(name, 2)
    site.await_accepted("work", name)
    assert second.id == run.task_id


def with_args(message: Message, *args: Any) -> Message:
    """The same message with other arguments, so that its second run takes longer."""
    _, kwargs, embed = json.loads(base64.b64decode(message["body"]))
    body = base64.b64encode(json.dumps([args, kwargs, embed]).encode()).decode()
    return {**message, "body": body}


def holds(site: Site, name: str, token: int) -> bool:
    """Whether the key is held by the lease with that fencing token."""
    refusal = site.refusal("work", name)
    return refusal is not None and refusal.holder.fencing_token == token


def held(site: Site, task_id: str) -> bool:
    """Whether any lock names that task, as the server's own records say."""
    with site.server.client() as client:
        locks = client.keys("*:lock:*")
        return any(task_id in str(client.get(lock)) for lock in locks)
