"""Members of a canvas are never refused: a duplicate among them is decided at its start."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord, group

from tests.harness.site import Site, redis_site

pytestmark = pytest.mark.oldest

WAIT = 40


@pytest.fixture(scope="module")
def canvas(redis_binary: str) -> Iterator[Site]:
    """One worker for all canvases here."""
    assert redis_binary
    with redis_site() as site:
        site.start(concurrency=4)
        yield site


@pytest.fixture
def tasks(canvas: Site) -> Any:
    """The publisher's tasks by name."""
    return canvas.app.tasks


def test_a_chain_of_equal_calls_completes(canvas: Site, tasks: Any, name: str) -> None:
    """Each step is published by the one before, while that still has the key."""
    steps = [tasks["work"].si(name) for _ in range(3)]
    result = chain(*steps, tasks["work"].si(f"{name}-last")).apply_async()
    assert result.get(timeout=WAIT) == f"{name}-last"
    assert not canvas.ledger.overlaps(name)


def test_a_group_of_equal_calls_completes(canvas: Site, tasks: Any, name: str) -> None:
    """One runs; the others end without having run beside it."""
    members = [tasks["work"].si(name, 0.5) for _ in range(3)]
    result = group(*members, tasks["work"].si(f"{name}-other")).apply_async()
    values = result.get(timeout=WAIT)
    assert values[3] == f"{name}-other"
    assert name in values
    assert set(values[:3]) <= {name, None}
    assert not canvas.ledger.overlaps(name)


def test_a_chord_of_equal_calls_reaches_its_body(canvas: Site, tasks: Any, name: str) -> None:
    """A header member that never reports would leave the body waiting for ever."""
    header = [tasks["work"].si(name, 0.5) for _ in range(3)]
    result = chord(header, tasks["collect"].s(f"{name}-body")).apply_async()
    values = result.get(timeout=WAIT)
    assert len(values) == 3
    assert name in values
    assert not canvas.ledger.overlaps(name)


def test_a_canvas_goes_on_beside_a_running_equal_call(
    canvas: Site, tasks: Any, name: str
) -> None:
    """The duplicate ends as skipped, with None, and the rest of the canvas is done."""
    running = canvas.publish("held", name)
    canvas.ledger.await_begin(name)
    header = [tasks["held"].si(name), tasks["work"].si(f"{name}-other")]
    result = chord(header, tasks["collect"].s(f"{name}-body")).apply_async()
    assert result.get(timeout=WAIT) == [None, f"{name}-other"]
    assert running.state == "PENDING"
    canvas.open_gate(name)
    assert running.get(timeout=WAIT) == name
    assert len(canvas.ledger.runs(name)) == 1


def test_a_link_to_an_equal_call_does_not_fail_its_parent(
    canvas: Site, tasks: Any, name: str
) -> None:
    """Raising in a link's publish turns the SUCCESS of the parent into a FAILURE."""
    link = tasks["work"].si(name)
    result = canvas.publish("work", name, link=link)
    canvas.await_state(result, "SUCCESS")
    canvas.await_drained()
    assert result.state == "SUCCESS"
    assert not canvas.ledger.overlaps(name)


def test_links_and_error_callbacks_are_called(canvas: Site, tasks: Any, name: str) -> None:
    """A guarded callback is published like any other."""
    canvas.publish("work", name, link=tasks["collect"].s(f"{name}-linked"))
    canvas.ledger.await_end(f"{name}-linked")
    canvas.publish("fail", name, link_error=tasks["collect"].si("told", f"{name}-errback"))
    canvas.ledger.await_end(f"{name}-errback")


def test_a_duplicate_with_a_link_is_refused_like_any_call_or_completes(
    canvas: Site, tasks: Any, name: str
) -> None:
    """A call with a link is part of a canvas: its link must not wait for ever."""
    canvas.publish("held", name)
    canvas.ledger.await_begin(name)
    linked = canvas.publish("held", name, link=tasks["collect"].s(f"{name}-linked"))
    canvas.await_state(linked, "SUCCESS")
    canvas.ledger.await_end(f"{name}-linked")
    canvas.open_gate(name)
    canvas.await_drained()
    assert len(canvas.ledger.runs(name)) == 1


def test_a_nested_canvas_of_duplicates_completes(canvas: Site, tasks: Any, name: str) -> None:
    """Chains in a chord's header: the last step of each reports to the body."""
    header = [
        chain(tasks["work"].si(f"{name}-{n}"), tasks["work"].si(name, 0.2)) for n in range(2)
    ]
    result = chord(header, tasks["collect"].s(f"{name}-body")).apply_async()
    assert len(result.get(timeout=WAIT)) == 2
    assert not canvas.ledger.overlaps(name)
