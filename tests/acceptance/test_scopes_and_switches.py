"""Scopes, publishing by name, and the ways to switch guarding off."""

from collections.abc import Iterator

import pytest

from onceguard import AlreadyQueued
from tests.harness.app import make_app
from tests.harness.site import Site, redis_site


@pytest.fixture(scope="module")
def busy(redis_binary: str) -> Iterator[Site]:
    """A worker with room for two runs of one key, if it were let."""
    assert redis_binary
    with redis_site() as site:
        site.start(concurrency=3)
        yield site


def test_until_executing_lets_the_next_call_in_when_the_first_starts(
    busy: Site, name: str
) -> None:
    """One queued, any number running."""
    once = {"scope": "until_executing"}
    first = busy.publish("held", name, once=once)
    busy.ledger.await_begin(name)
    second = busy.publish("held", name, once=once)
    busy.ledger.await_begin(name, 2)
    busy.open_gate(name)
    assert first.get(timeout=30) == second.get(timeout=30) == name
    assert len(busy.ledger.overlaps(name)) == 1


def test_until_executing_refuses_while_queued(site: Site, name: str) -> None:
    """Until a worker starts the first, equal calls are duplicates."""
    once = {"scope": "until_executing"}
    site.publish("work", name, once=once)
    with pytest.raises(AlreadyQueued):
        site.publish("work", name, once=once)


def test_until_executing_does_not_run_a_second_delivery_beside_the_first(
    busy: Site, name: str
) -> None:
    """Other messages may run beside it, this very message may not."""
    result = busy.publish("held", name, once={"scope": "until_executing"})
    busy.ledger.await_begin(name)
    busy.broker.deliver(busy.broker.capture(result.id))
    await_put_off(busy, result.id)
    busy.open_gate(name)
    busy.await_state(result, "SUCCESS")
    busy.await_drained()
    assert len(busy.ledger.runs(name)) == 1


def await_put_off(site: Site, task_id: str) -> None:
    """Wait until a delivery of that task was put off."""
    from tests.harness.waiting import eventually  # noqa: PLC0415

    eventually(
        lambda: (
            task_id in {line.task_id for line in site.ledger.lines("once_duplicate_delivery")}
        ),
        "it was put off",
    )


def test_while_executing_refuses_nothing_at_publish(busy: Site, name: str) -> None:
    """Any number queued, one running; the second is skipped at its start."""
    once = {"scope": "while_executing"}
    first = busy.publish("held", name, once=once)
    busy.ledger.await_begin(name)
    second = busy.publish("held", name, once=once)
    assert second.get(timeout=30) is None
    busy.open_gate(name)
    assert first.get(timeout=30) == name
    assert len(busy.ledger.runs(name)) == 1


def test_a_call_by_name_from_a_process_without_the_task_is_guarded_in_the_worker(
    busy: Site, name: str
) -> None:
    """Its publisher cannot know the options; the worker does."""
    first = busy.stranger.send_task("held", (name,))
    busy.ledger.await_begin(name)
    second = busy.stranger.send_task("held", kwargs={"name": name})
    busy.await_state(busy.app.AsyncResult(second.id), "SUCCESS")
    assert busy.app.AsyncResult(second.id).get(timeout=5) is None
    assert busy.refusal("held", name).holder.task_id == first.id
    busy.open_gate(name)
    assert busy.app.AsyncResult(first.id).get(timeout=30) == name
    assert len(busy.ledger.runs(name)) == 1


def test_a_call_with_once_false_is_not_guarded(busy: Site, name: str) -> None:
    """The way out for one call: neither refused nor waiting, nor in anyone's way."""
    results = [busy.publish("held", name, once=False) for _ in range(2)]
    busy.ledger.await_begin(name, 2)
    busy.publish("held", name)
    busy.ledger.await_begin(name, 3)
    busy.open_gate(name)
    assert [result.get(timeout=30) for result in results] == [name, name]


def test_an_option_given_for_one_call_holds_for_that_call(busy: Site, name: str) -> None:
    """The caller may know better whether to raise or to skip."""
    first = busy.publish("held", name)
    duplicate = busy.publish("held", name, once={"on_conflict": "skip"})
    assert duplicate.duplicate is True
    assert duplicate.id == first.id
    with pytest.raises(AlreadyQueued):
        busy.publish("held", name)
    busy.open_gate(name)
    assert duplicate.get(timeout=30) == name


def test_once_enabled_false_switches_everything_off(redis_binary: str, name: str) -> None:
    """For an application's own tests."""
    assert redis_binary
    with redis_site(conf={"once_enabled": False}) as site:
        site.start(concurrency=2)
        for _ in range(2):
            site.publish("held", name)
        site.ledger.await_begin(name, 2)
        site.open_gate(name)


def test_eager_calls_run_without_broker_store_or_guard(site: Site, name: str) -> None:
    """An application's unit tests have no Redis."""
    dead = {"once_url": "redis://127.0.0.1:1/0", "broker_url": "redis://127.0.0.1:1/0"}
    eager = {"task_always_eager": True, "task_eager_propagates": True}
    app = make_app(site.settings | {"conf": site.settings["conf"] | dead | eager})
    task = app.tasks["work"]
    assert task.apply_async((name,)).get() == name
    assert task.delay(name).get() == name
    assert task.apply((name,)).get() == name
    assert task(name) == name
    assert len(site.ledger.runs(name)) == 4
