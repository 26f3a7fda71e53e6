"""
What guarding costs, next to plain Celery in the same run: ``make bench``.

Every figure is a ratio of medians that were taken in turns (plain, guarded, plain,
guarded …), for the machine's speed drifts. The unit for publishing is one plain
``SET NX PX`` of redis-py. Commands are counted at the server.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import redis
from celery import Celery

from onceguard import AlreadyQueued, QueueOnce
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
_QUIET = ("--concurrency=2", "--loglevel=ERROR", "--without-mingle", "--without-gossip")
BROKER, STORE = "BENCH_BROKER", "BENCH_STORE"


def make_app() -> tuple[Celery, Any, Any]:
    """Make the app of publisher and worker: the same empty task, plain and guarded."""
    app = Celery("bench", broker=os.environ[BROKER])
    app.conf.update(
        once_url=os.environ[STORE],
        task_ignore_result=True,
        worker_prefetch_multiplier=64,
        worker_hijack_root_logger=False,
    )

    def nothing(n: object) -> None:
        """Do nothing."""

    plain = app.task(name="bench.plain", acks_late=True, shared=False)(nothing)
    guarded = app.task(name="bench.guarded", base=QueueOnce, shared=False)(nothing)
    return app, app.tasks[plain.name], app.tasks[guarded.name]


def medians(rounds: int, acts: dict[str, Callable[[int], object]]) -> dict[str, float]:
    """Do all acts in turns, so often; the median of each in µs."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for number in range(rounds):
        for name, act in acts.items():
            begun = time.perf_counter()
            act(number)
            times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(each) * 1e6 for name, each in times.items()}


def publishing(broker: RedisServer, store: RedisServer, rounds: int) -> None:
    """Compare a publish and a refused duplicate with one SET NX PX."""
    _, plain, guarded = make_app()
    client, token = redis.Redis.from_url(store.url), str(uuid.uuid4())  # as the store connects
    guarded.delay(-1)
    plain.delay(-1)

    def refused(_: int) -> None:
        try:
            guarded.delay(-1)
        except AlreadyQueued:
            return
        raise AssertionError("a duplicate was not refused")

    taken = medians(
        rounds,
        {
            "set": lambda n: client.set(f"lock:{n}", token, nx=True, px=60_000),
            "plain": plain.delay,
            "guarded": guarded.delay,
            "refused": refused,
        },
    )
    unit = taken["set"]
    row("guarding adds to a publish, in SET NX PX", (taken["guarded"] - taken["plain"]) / unit)
    row("a refused duplicate, in SET NX PX", taken["refused"] / unit)
    row("a guarded publish to a plain one", taken["guarded"] / taken["plain"])
    store.flush()
    for number in range(100):
        guarded.delay(f"counted {number}")
    row("calls to the lock server for a publish", store.command_counts()["evalsha"] / 100)
    broker.flush()
    store.flush()


def throughput(store: RedisServer, tasks: int, turns: int) -> None:
    """Compare how fast a prefork worker runs empty tasks, plain and guarded in turns."""
    app, plain, guarded = make_app()
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tests.benchmark.worker", "worker", *_QUIET],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: app.control.ping(timeout=0.5), "the worker answered", timeout=60)
        taken: dict[str, list[float]] = {"plain": [], "guarded": []}
        calls = 0
        for turn in range(turns + 1):
            for name, task in (("plain", plain), ("guarded", guarded)):
                seconds, used = drained(app, task, tasks, store)
                if turn:  # the first warms up
                    taken[name].append(seconds)
                    calls += used if name == "guarded" else 0
    finally:
        worker.terminate()
        worker.wait(60)
    ratio = statistics.median(taken["plain"]) / statistics.median(taken["guarded"])
    row("throughput of empty tasks, prefork, to plain Celery's", ratio)
    row("calls to the lock server for a run", calls / tasks / turns)


def drained(app: Celery, task: Any, tasks: int, store: RedisServer) -> tuple[float, int]:
    """Fill the queue while the worker may not consume, then time how long it takes."""
    app.control.cancel_consumer("celery", reply=True)
    with app.connection_for_write() as connection, connection.channel() as channel:
        for number in range(tasks):
            task.delay(number)
        store.client().config_resetstat()
        begun = time.perf_counter()
        app.control.add_consumer("celery", reply=True)
        load = (partial(channel.client.llen, "celery"), partial(channel.client.hlen, "unacked"))
        eventually(
            lambda: not any(each() for each in load), "all had run", timeout=300, poll=0.005
        )
        return time.perf_counter() - begun, store.command_counts().get("evalsha", 0)


def row(what: str, figure: float) -> None:
    """Print one figure."""
    click.echo(f"{what:58s} {figure:6.2f}")


@click.command()
@click.option("--rounds", default=3000, help="Publishes of each kind.")
@click.option("--tasks", default=2000, help="Empty tasks in each turn.")
@click.option("--turns", default=5, help="Turns of each kind.")
def main(rounds: int, tasks: int, turns: int) -> None:
    """Print what guarding costs, as ratios within this run."""
    broker, store = RedisServer().start(), RedisServer().start()
    os.environ[BROKER], os.environ[STORE] = broker.url, store.url
    try:
        publishing(broker, store, rounds)
        throughput(store, tasks, turns)
    finally:
        broker.close()
        store.close()


if __name__ == "__main__":
    main()
