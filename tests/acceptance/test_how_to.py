"""The how-to pages do what they say: their files and commands, taken as they stand."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.program import ROOT
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import eventually

PAGES = ROOT / "docs" / "how-to"
FILE = re.compile(r"`([\w.]+\.py)`:\n\n```python\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"^celery (.*)$", re.MULTILINE)


@contextmanager
def followed(page: str, server: RedisServer, directory: Path) -> Iterator[list[Path]]:
    """Do what a page says, in a directory of our own; yields the commands' logs."""
    text = (PAGES / page).read_text()
    for name, code in FILE.findall(text):
        (directory / name).write_text(code)
    environment = {**os.environ, "REDIS_URL": server.url, "PYTHONPATH": str(ROOT)}
    programs: list[subprocess.Popen[bytes]] = []
    logs = []
    try:
        for number, command in enumerate(COMMAND.findall(text)):
            logs.append(directory / f"{number}.log")
            with logs[-1].open("wb") as log:
                programs.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "celery", *shlex.split(command)],
                        cwd=directory,
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                )
        yield logs
    finally:
        for program in programs:
            program.terminate()
        for program in programs:
            try:
                program.wait(30)
            finally:
                program.kill()
        for path in logs:
            print(path.read_text())


def test_a_schedule_is_kept_from_overlapping(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    The page's schedule is skipped while its run goes on, and sent again after it.

    The task is a plain one: the page promises that it needs no base class.
    """
    page = "keep-a-schedule-from-overlapping.md"
    running = "overlap_skipped: tasks.sync(warehouse=3) is running"
    assert running in (PAGES / page).read_text()
    with followed(page, redis_server, tmp_path) as (worker, beat):
        eventually(lambda: running in beat.read_text(), "a tick was skipped", timeout=60)
        eventually(
            lambda: worker.read_text().count("succeeded") > 1, "it ran again", timeout=60
        )
        received = worker.read_text().count("received")
        assert received - worker.read_text().count("succeeded") <= 1


def test_several_beats_send_each_tick_once(redis_server: RedisServer, tmp_path: Path) -> None:
    """Two beats of the page, started by its commands: one says that the other has sent."""
    page = "run-several-beats.md"
    taken = "tick of 'report' was sent by another beat"
    assert taken in (PAGES / page).read_text()
    with followed(page, redis_server, tmp_path) as beats:
        assert len(beats) > 1
        eventually(
            lambda: sum(beat.read_text().count(taken) for beat in beats) > 2,
            "ticks were left to the other beat",
            timeout=60,
        )
        due = sum(beat.read_text().count("Sending due task report") for beat in beats)
        with redis_server.client() as client:
            assert client.llen("celery") < due


@pytest.mark.parametrize(
    "page", ["test-tasks-without-redis.md", "check-a-store-of-your-own.md"]
)
def test_pages_that_run_pytest(page: str, tmp_path: Path) -> None:
    """They work in an empty directory, with the page's files and its command only."""
    text = (PAGES / page).read_text()
    for name, code in FILE.findall(text):
        (tmp_path / name).write_text(code)
    (command,) = re.findall(r"^pytest (.*)$", text, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *shlex.split(command)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
