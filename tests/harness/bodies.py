"""
What the tasks of the test app do: each writes to the ledger, then ends in its own way.

All are bound; the first argument is the name under which the ledger knows the run, and
what makes a call unique.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from celery import Task
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded

from tests.harness.ledger import Ledger

LIBC = ctypes.PyDLL(None)  # a PyDLL keeps the GIL while C code runs
NEVER = threading.Event()
LONGEST = 120.0


def witness(task: Any) -> Ledger:
    """The ledger of the site for which this app was made."""
    return Ledger(task.app.conf.harness_ledger)


def pause(seconds: float) -> None:
    """Sleep, in a way that every pool and libfaketime can bear (`time.sleep` fails there)."""
    NEVER.wait(seconds)


def gate(task: Any, name: str) -> Path:
    """A file whose appearance lets the run of that name go on."""
    return witness(task).path.with_name(f"{name}.go")


def wait_at_gate(task: Any, name: str) -> None:
    """Stay until the test opens the gate."""
    deadline = time.monotonic() + LONGEST
    while not gate(task, name).exists() and time.monotonic() < deadline:
        pause(0.02)


def work(self: Any, name: str, seconds: float = 0) -> str:
    """Take so many seconds, and succeed."""
    with witness(self).run(self, name):
        pause(seconds)
    return name


def held(self: Any, name: str) -> str:
    """Run until the test opens the gate of that name."""
    with witness(self).run(self, name):
        wait_at_gate(self, name)
    return name


def nap_native(self: Any, name: str, seconds: float) -> str:
    """Stay in C code that holds the GIL: no thread of this process runs Python meanwhile."""
    with witness(self).run(self, name):
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            LIBC.usleep(int(left * 1e6))
    return name


def checked(self: Any, name: str) -> str:
    """Ask, when the gate opens, whether the lease is still ours; write the answer down."""
    with witness(self).run(self, name):
        wait_at_gate(self, name)
        once, ledger = self.request.once, witness(self)
        facts = f"lost={once.lost} fence={once.fencing_token}"
        ledger.note("asked", name, task_id=self.request.id, detail=facts)
        once.check()
        ledger.note("effect", name, task_id=self.request.id, detail=facts)
    return name


def obedient(self: Any, name: str) -> str:
    """Run until the gate opens, asking all the while whether to go on."""
    with witness(self).run(self, name):
        deadline = time.monotonic() + LONGEST
        while not gate(self, name).exists() and time.monotonic() < deadline:
            self.request.once.check()
            pause(0.05)
    return name


def labelled(self: Any, name: str, label: str) -> str:
    """Write down another argument than the name, and run until the gate opens."""
    with witness(self).run(self, name):
        witness(self).note("label", name, task_id=self.request.id, detail=label)
        wait_at_gate(self, name)
    return name


def fail(self: Any, name: str) -> NoReturn:
    """Raise an ordinary exception."""
    with witness(self).run(self, name):
        message = f"{name} failed as told"
        raise ValueError(message)


def retry_once(self: Any, name: str, countdown: float = 0) -> str:
    """Retry the first run, succeed in the second."""
    with witness(self).run(self, name):
        if self.request.retries == 0:
            raise self.retry(countdown=countdown)
    return name


def replaced(self: Any, name: str, step: int = 0) -> str:
    """Replace the first run by a call with the same key, which succeeds."""
    with witness(self).run(self, name):
        if step == 0:
            raise self.replace(self.s(name, 1))
    return name


def ignore(self: Any, name: str) -> NoReturn:
    """Leave no result."""
    with witness(self).run(self, name):
        raise Ignore


def reject(self: Any, name: str) -> NoReturn:
    """Refuse the message for good."""
    with witness(self).run(self, name):
        raise Reject("as told", requeue=False)


def reject_first(self: Any, name: str) -> str:
    """Hand the message back the first time, succeed when it comes again."""
    with witness(self).run(self, name):
        if len(witness(self).runs(name)) == 1:
            raise Reject("as told", requeue=True)
    return name


def last_words(task: Any, name: str, how: str) -> None:
    """Write begin and end at once, before a death that runs no `finally`."""
    with contextlib.suppress(LastWord), witness(task).run(task, name):
        raise LastWord(how)


class LastWord(Exception):  # noqa: N818
    """Its name stands in the ledger as the end of a run that kills its process."""


def exit_hard(self: Any, name: str) -> NoReturn:
    """End the process without a word."""
    last_words(self, name, "exit")
    os._exit(7)


def kill_itself(self: Any, name: str) -> NoReturn:
    """End the process as the out-of-memory killer does."""
    last_words(self, name, "killed")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def system_exit(self: Any, name: str) -> NoReturn:
    """Raise what `sys.exit` raises."""
    with witness(self).run(self, name):
        raise SystemExit(3)


def memory_error(self: Any, name: str) -> NoReturn:
    """Raise what plain Celery takes for the end of its worker."""
    with witness(self).run(self, name):
        raise MemoryError(name)


def collect(self: Any, results: Any, name: str) -> Any:
    """Take the results of a header or of the task before, and hand them on."""
    with witness(self).run(self, name):
        return results


def retry_slowly(self: Any, name: str) -> str:
    """Publish a retry that finds its parent still at work; succeed in the second run."""
    with witness(self).run(self, name):
        if self.request.retries == 0:
            try:
                self.retry(countdown=0)
            except Retry:
                pause(1.0)
                raise
    return name


def clean_up(self: Any, name: str, seconds: float) -> str:
    """Take so many seconds to clean up when told to stop."""
    with witness(self).run(self, name):
        try:
            wait_at_gate(self, name)
        except SoftTimeLimitExceeded:
            witness(self).note("told", name, task_id=self.request.id)
            pause(seconds)
            raise
    return name


def leave(*_: Any) -> NoReturn:
    """Handle SIGTERM as programs with a handler of their own do."""
    sys.exit(0)


def leave_when_terminated(self: Any, name: str) -> str:
    """Run until the gate opens, and exit when terminated before."""
    signal.signal(signal.SIGTERM, leave)
    with witness(self).run(self, name):
        wait_at_gate(self, name)
    return name


BODIES: dict[str, Any] = {
    body.__name__: body
    for body in (
        work, held, nap_native, checked, obedient, labelled, fail, retry_once, replaced,
        ignore, reject, reject_first, exit_hard, kill_itself, system_exit, memory_error,
        collect, retry_slowly, clean_up, leave_when_terminated,
    )
}  # fmt: skip


def break_down(*_: Any) -> NoReturn:
    """Be a handler with a fault of its own."""
    message = "the handler failed as told"
    raise LookupError(message)


def retry_once_before_start(self: Any, *_: Any) -> None:
    """Put the first run off before its body begins, as a check of its surroundings does."""
    if self.request.retries == 0:
        raise self.retry(countdown=0)


def reject_first_before_start(self: Any, _task_id: str, args: Any, _kwargs: Any) -> None:
    """Hand the message back the first time, as a check of its surroundings does."""
    if not witness(self).lines("handed-back", args[0]):
        witness(self).note("handed-back", args[0], task_id=self.request.id)
        raise Reject("as told", requeue=True)


class WithContext(Task):  # type: ignore[misc,unused-ignore]
    """Enter a context around the body: the base class that Flask documents."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call `self.run`, and nobody's `__call__`."""
        with contextlib.nullcontext():
            return self.run(*args, **kwargs)


HANDLED: dict[str, tuple[Any, dict[str, Any]]] = {
    "fail_with_broken_on_failure": (fail, {"on_failure": break_down}),
    "retry_with_broken_on_retry": (retry_once, {"on_retry": break_down}),
    "work_with_broken_before_start": (work, {"before_start": break_down}),
    "work_after_retry_before_start": (work, {"before_start": retry_once_before_start}),
    "work_after_reject_before_start": (work, {"before_start": reject_first_before_start}),
    "held_in_context": (held, {"mixin": WithContext}),
}
"""Tasks whose class has more than a body: {task name: (body, attributes of its class)}."""
