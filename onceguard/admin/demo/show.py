"""The acts: what is published, broken and waited for, in this order."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from redis import Redis

from onceguard import AlreadyQueued
from onceguard.admin.demo import tasks
from onceguard.admin.demo.processes import answers
from onceguard.admin.demo.verdict import faults, runs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self

    from onceguard.admin.demo.board import Board
    from onceguard.admin.demo.journal import Journal
    from onceguard.admin.demo.processes import Program, Programs
    from onceguard.admin.demo.verdict import Run

_POLL = 0.05
_LIMIT = 58.0
_STARTING = 30.0
_DRAINING = 12.0
_GIVING_UP = 20.0  # Celery takes up to 5 s to notice each dead process
_SWEEPING = 7.0
_POISON = "poison(row=13)"
_QUEUE = "celery"


class ShowStopped(Exception):  # noqa: N818 - it is stopped, by whatever
    """The show cannot go on; the sentence says why."""


class Show:
    """
    Publishes calls, breaks what runs them, and waits for what becomes of them.

    Args:
        programs: Starts and ends the processes.
        board: Where people see it.
        ledger: What the task bodies write.
        socket: Where the Redis will listen.
    """

    def __init__(self, programs: Programs, board: Board, ledger: Journal, socket: Path) -> None:
        self._programs, self._board, self._ledger = programs, board, ledger
        self._socket = socket
        self._redis = Redis(unix_socket_path=str(socket), socket_timeout=5)
        self._accepted: dict[str, str] = {}
        self._results: list[Any] = []
        self._ends = time.monotonic() + _LIMIT

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the results: they would take leave of a Redis that is gone by then."""
        for result in self._results:
            result.backend = None

    def run(self, redis_binary: str) -> None:
        """Show everything, from the first process to the last act."""
        workers = self._open(redis_binary)
        beats = self._let_ticks_overlap()
        self._publish_duplicates()
        self._kill_a_beat(beats[0])
        self._deliver_again()
        self._await(lambda: self._done("sync(warehouse=3)"), _DRAINING)
        beats[1].terminate()
        survivor = self._kill_a_worker(workers)
        self._kill_a_pool_process()
        self._poison(survivor)

    def faults(self) -> list[str]:
        """Say what should not have happened, from the ledger alone."""
        return faults(self._ledger.lines(), self._accepted, {_POISON: tasks.MAX_STARTS})

    def _open(self, redis_binary: str) -> dict[str, Program]:
        self._board.act("A Redis and two workers with two processes each are started.")
        self._programs.redis(redis_binary, self._socket)
        self._must(lambda: answers(self._redis), "the Redis answered")
        workers = {name: self._programs.worker(name) for name in ("one", "two")}
        self._must(lambda: self._count("ready") == len(workers), "both workers were ready")
        return workers

    def _let_ticks_overlap(self) -> tuple[Program, Program]:
        self._board.act(
            "Two beats send sync every 2 s, and one run takes 5 s: ticks overlap it."
        )
        return self._programs.beat("beat-one"), self._programs.beat("beat-two")

    def _kill_a_beat(self, beat: Program) -> None:
        beat.kill()
        self._board.tell("", "killed", f"{beat.name}, by SIGKILL: the other one goes on")

    def _publish_duplicates(self) -> None:
        self._board.act("Equal calls are published: one kind raises, the other is skipped.")
        for _ in range(3):
            self._publish(tasks.invoice, "invoice(order=1001)", 1001)
        call = "report(account=7)"
        first = self._publish(tasks.report, call, 7)
        self._must(lambda: self._runs(call), f"{call} ran")
        second = self._publish(tasks.report, call, 7)
        sent = tasks.app.send_task("report", (7,))
        self._results.append(sent)
        why = f"by its name alone, as task {sent.id[:8]}, past every check of a publisher"
        self._board.tell(call, "sent", why)
        self._await(self._drained_but_ticks, _DRAINING)
        if second is not None and second.id == first.id and second.ready():
            answer = f"the skipped call's result is the first one's: {second.get()!r}"
            self._board.tell(call, "result", answer)

    def _deliver_again(self) -> None:
        self._board.act("The broker delivers a message again while it runs.")
        call = "transfer(file=12)"
        result = self._publish(tasks.transfer, call, 12)
        self._must(lambda: self._runs(call), f"{call} ran")
        self._redeliver(result.id)
        self._board.tell(call, "redelivered", "as after a broken connection of its worker")
        self._await(self._drained_but_ticks, _DRAINING)

    def _kill_a_worker(self, workers: dict[str, Program]) -> Program:
        self._await(self._drained, _DRAINING)
        self._board.act("A worker is killed in mid-run, with its pool processes.")
        call = "export(table=4)"
        self._publish(tasks.export, call, 4)
        run = self._must(lambda: self._runs(call), f"{call} ran")[0]
        self._pause(1.0)
        name = run.begin.facts["worker"].partition("@")[0]
        workers[name].kill()
        self._ledger.note("dead", pid=run.begin.pid)
        self._board.tell(call, "killed", f"worker {name} with all its processes, by SIGKILL")
        if not self._await(lambda: len(self._runs(call)) > 1, _SWEEPING):
            self._programs.worker("three")
            why = "started, for older versions of kombu look for lost messages only then"
            self._board.tell("", "worker three", why)
        self._await(lambda: self._done(call), _DRAINING)
        tokens = [run.begin.facts.get("token") or 0 for run in self._runs(call)]
        if tokens[-1] > tokens[0]:
            why = "the fencing token grew: what the dead run left behind can be told apart"
            self._board.tell(call, "taken over", why)
        self._await(self._drained, _DRAINING)
        return next(program for other, program in workers.items() if other != name)

    def _kill_a_pool_process(self) -> None:
        self._board.act("A pool process is killed in mid-run; Celery notices within seconds.")
        call = "resize(image=5)"
        self._publish(tasks.resize, call, 5)
        run = self._must(lambda: self._runs(call), f"{call} ran")[0]
        self._pause(0.5)
        os.kill(run.begin.pid, signal.SIGKILL)
        self._ledger.note("dead", pid=run.begin.pid)
        self._board.tell(call, "killed", f"pid {run.begin.pid}, by SIGKILL")
        self._await(lambda: self._done(call), _DRAINING)
        self._await(self._drained, _DRAINING)

    def _poison(self, worker: Program) -> None:
        limit = f"max_deliveries is {tasks.MAX_STARTS}"
        self._board.act(f"A call kills every process that runs it; {limit}.")
        result = self._publish(tasks.poison, _POISON, 13)
        self._await(result.ready, _GIVING_UP)
        if result.ready():
            self._board.tell(_POISON, result.state, f"{type(result.result).__name__} is stored")
        lives = "lives" if worker.alive else "is dead"
        self._board.tell("", "afterwards", f"worker {worker.name} {lives}")

    def _publish(self, task: Any, call: str, argument: int) -> Any:
        """Publish a call and tell what its publisher sees; None if that is an error."""
        try:
            result = task.delay(argument)
        except AlreadyQueued as refusal:
            left = f"free in {refusal.countdown:.0f} s unless it is renewed or ends"
            self._board.tell(call, "AlreadyQueued", f"raised at the publisher: {left}")
            return None
        self._results.append(result)
        if getattr(result, "duplicate", False):
            why = f"returned, the result of task {result.id[:8]}"
            self._board.tell(call, "DuplicateResult", why)
        else:
            self._accepted[result.id] = call
            self._board.tell(call, "published", f"as task {result.id[:8]}")
        return result

    def _redeliver(self, task_id: str) -> None:
        """Do what a Redis broker does with a message that a lost worker had."""
        for raw in self._redis.hvals("unacked"):
            message = json.loads(raw)[0]
            if message["headers"]["id"] == task_id:
                message["properties"]["delivery_info"]["redelivered"] = True
                self._redis.rpush(_QUEUE, json.dumps(message))

    def _count(self, event: str) -> int:
        return sum(line.event == event for line in self._ledger.lines())

    def _runs(self, call: str) -> list[Run]:
        return [run for run in runs(self._ledger.lines()) if run.begin.call == call]

    def _done(self, call: str) -> bool:
        return any(run.completed for run in self._runs(call))

    def _drained(self) -> bool:
        """Whether no message lies in the queue, nor with a worker."""
        return not (self._redis.llen(_QUEUE) or self._redis.hlen("unacked"))

    def _drained_but_ticks(self) -> bool:
        held = [json.loads(raw)[0] for raw in self._redis.hvals("unacked")]
        lying = [json.loads(raw) for raw in self._redis.lrange(_QUEUE, 0, -1)]
        return all(message["headers"]["task"] == "sync" for message in held + lying)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._await(lambda: time.monotonic() > until, seconds + 1)

    def _must(self, probe: Callable[[], Any], what: str) -> Any:
        """Wait for what the rest of the show needs."""
        found = self._await(probe, _STARTING)
        if not found:
            raise ShowStopped(f"Waited {_STARTING:.0f} s in vain until {what}.")
        return found

    def _await(self, probe: Callable[[], Any], seconds: float) -> Any:
        """Wait until it is so, for *seconds* at most, and show what happens meanwhile."""
        deadline = time.monotonic() + seconds
        while not (found := probe()) and time.monotonic() < deadline:
            self._board.refresh()
            if time.monotonic() > self._ends:
                raise ShowStopped(f"The show takes longer than {_LIMIT:.0f} s.")
            program = self._programs.dead()
            if program is not None:
                raise ShowStopped(f"{program.name} ended:\n{program.last_words()}")
            time.sleep(_POLL)
        self._board.refresh()
        return found
