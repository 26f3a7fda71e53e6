"""
Publish one call from many processes in the same instant.

    python -m tests.harness.publisher TASK NAME PROCESSES

Each writes `queued` or `refused` to the ledger, with what it was told.
"""

import multiprocessing
import os
import sys
from multiprocessing.synchronize import Barrier

from onceguard import AlreadyQueued
from tests.harness.app import app
from tests.harness.ledger import Ledger


def publish(task: str, name: str, barrier: Barrier) -> None:
    """Wait until all are there, then publish."""
    ledger = Ledger(app.conf.harness_ledger)
    barrier.wait(timeout=60)
    try:
        result = app.tasks[task].apply_async((name,))
    except AlreadyQueued as refusal:
        ledger.note("refused", name, detail=f"holder={refusal.holder.task_id}")
    else:
        ledger.note("queued", name, task_id=result.id)


def main(task: str, name: str, processes: int) -> None:
    """Fork after all imports, so that nobody is late."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(processes)
    children = [
        context.Process(target=publish, args=(task, name, barrier)) for _ in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    sys.stdout.flush()
    os._exit(any(child.exitcode != 0 for child in children))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
