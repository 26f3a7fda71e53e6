"""
What beats that are killed over and over send: ``python -m tests.benchmark.beats``.

Three beats run side by side. Whoever sent last is killed with SIGKILL and started again,
every other time on an empty disk; two in a row, then all are waited for. Messages are
counted as they come into the broker's queue, by its own clock. The same run for plain
beats, for RedBeat with its lock, and for onceguard.
"""

from __future__ import annotations

import contextlib
import io
import time
from dataclasses import dataclass, field
from typing import Any

import click

from tests.harness.crowd import crowd_of
from tests.harness.pace import duplicates, worst_gap
from tests.harness.post import watched
from tests.harness.schedulers import RedBeat
from tests.harness.site import redis_site


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One way to run several beats."""

    title: str
    options: dict[str, Any] = field(default_factory=dict)


KINDS = (
    Kind(title="plain beat, Celery's scheduler", options={"guarded": False}),
    Kind(
        title=f"RedBeat, lock of {RedBeat.lock_timeout} s",
        options={"guarded": False, "scheduler": "redbeat"},
    ),
    Kind(title="onceguard, Celery's scheduler"),
    Kind(title="onceguard, django-celery-beat", options={"scheduler": "django"}),
    Kind(title="onceguard, sqlalchemy-celery-beat", options={"scheduler": "sqlalchemy"}),
    Kind(
        title="onceguard, RedBeat without its lock",
        options={"scheduler": "redbeat", "conf": {"redbeat_lock_key": None}},
    ),
)


def run(kind: Kind, *, kills: int, interval: float) -> tuple[str, ...]:
    """Kill senders; returns a row of the table."""
    entry = {"task": "plain", "args": ["tick"], "schedule": interval}
    with (
        contextlib.redirect_stdout(io.StringIO()),  # a site tells its story when it ends
        redis_site(schedule={"tick": entry}, install="setup") as site,
        watched(site.server) as post,
    ):
        with crowd_of(site, post, **kind.options) as crowd:
            crowd.kill_senders(kills)
            time.sleep(2 * interval)
        sent = post.letters()
    seconds = sent[-1].at - sent[0].at
    return (
        kind.title,
        str(kills),
        f"{seconds / interval:.0f}",
        str(len(sent)),
        str(duplicates(sent, interval)),
        f"{worst_gap(sent) / interval:.2f}",
    )


def show(cells: tuple[str, ...]) -> None:
    """Print a row in Markdown."""
    click.echo("| " + " | ".join(cells) + " |")


@click.command()
@click.option("--kills", default=20, help="How often the sender is killed.")
@click.option("--interval", default=1.0, help="Seconds between two ticks.")
def main(kills: int, interval: float) -> None:
    """Print a table, in Markdown."""
    show(("", "kills", "intervals", "sent", "duplicates", "worst gap, in intervals"))
    show(("---",) * 6)
    for kind in KINDS:
        show(run(kind, kills=kills, interval=interval))


if __name__ == "__main__":
    main()
