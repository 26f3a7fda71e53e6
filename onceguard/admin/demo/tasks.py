"""
The app of the show: a handful of tasks that take their time.

Each body writes its begin and its end into the ledger; that file alone decides
whether anything ran twice. What onceguard decides arrives through its signals
and goes into a file of its own.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery import Celery
from celery.signals import worker_ready

from onceguard import QueueOnce, signals
from onceguard.admin.demo.place import decisions, ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onceguard.observe.events import Event

MAX_STARTS = 3
"""Starts after which the task that kills its process is given up."""

app = Celery("demo")
app.config_from_object("onceguard.admin.demo.celeryconfig")


def _guarded(name: str, **once: Any) -> Callable[[Callable[..., Any]], Any]:
    """Declare a task as ``@app.task(base=QueueOnce, once={...})`` does, typed."""

    def declare(body: Callable[..., Any]) -> Any:
        return app.task(body, base=QueueOnce, bind=True, name=name, once=once or True)

    return declare


@_guarded("invoice")
def invoice(self: Any, order: int) -> str:
    """Refuse an equal call with an exception, the default."""
    with _witnessed(self, f"invoice(order={order})"):
        time.sleep(2)
    return f"invoice of order {order}"


@_guarded("report", on_conflict="skip")
def report(self: Any, account: int) -> str:
    """Refuse an equal call quietly: its caller gets the first one's result."""
    with _witnessed(self, f"report(account={account})"):
        time.sleep(2)
    return f"report on account {account}"


@_guarded("sync", on_conflict="skip")
def sync(self: Any, warehouse: int) -> None:
    """Take longer than beat's interval."""
    with _witnessed(self, f"sync(warehouse={warehouse})"):
        time.sleep(5)


@_guarded("transfer")
def transfer(self: Any, file: int) -> None:
    """Be delivered a second time meanwhile."""
    with _witnessed(self, f"transfer(file={file})"):
        time.sleep(2)


@_guarded("export")
def export(self: Any, table: int) -> None:
    """Lose the whole worker in mid-run."""
    with _witnessed(self, f"export(table={table})"):
        time.sleep(3)


@_guarded("resize")
def resize(self: Any, image: int) -> None:
    """Lose the pool process in mid-run."""
    with _witnessed(self, f"resize(image={image})"):
        time.sleep(2)


@_guarded("poison", max_deliveries=MAX_STARTS)
def poison(self: Any, row: int) -> None:
    """Kill whatever process runs it, as running out of memory does."""
    call = f"poison(row={row})"
    with _witnessed(self, call):
        time.sleep(0.3)
        ledger().note("dead", call=call, task_id=self.request.id)
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _witnessed(task: Any, call: str) -> Iterator[None]:
    """Write the begin and the end of a body into the ledger."""
    request, book = task.request, ledger()
    once = getattr(request, "once", None)
    seen = {"attempt": once.attempt, "token": once.fencing_token} if once else {}
    run = uuid4().hex
    book.note("begin", call=call, task_id=request.id, run=run, worker=request.hostname, **seen)
    yield
    book.note("end", call=call, task_id=request.id, run=run, worker=request.hostname)


def _tell(event: Event, **_: Any) -> None:
    """Write down what onceguard decided, and because of whom."""
    holder = event.holder
    facts: dict[str, Any] = {"detail": event.detail}
    if holder is not None:
        facts |= {
            "state": holder.state,
            "where": holder.where,
            "attempt": holder.attempt,
            "age": max(0.0, time.time() - holder.since),
        }
    decisions().note(event.outcome.value, call=event.key, task_id=event.task_id, **facts)


def _ready(sender: Any, **_: Any) -> None:
    ledger().note("ready", worker=sender.hostname)


worker_ready.connect(_ready, weak=False)
for _signal in signals.BY_OUTCOME.values():
    _signal.connect(_tell, weak=False)
