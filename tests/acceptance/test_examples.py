"""The examples run as their README says."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.program import ROOT
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import eventually

MINIMAL = ROOT / "examples" / "minimal"


@pytest.fixture
def environment(redis_server: RedisServer) -> dict[str, str]:
    """The example's Redis is ours, and the library is this checkout's."""
    return {**os.environ, "REDIS_URL": redis_server.url, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def log(environment: dict[str, str], tmp_path: Path) -> Iterator[Path]:
    """The log of a worker that was started by the README's command and is ready."""
    path = tmp_path / "log"
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker"]
    with path.open("wb") as log:
        worker = subprocess.Popen(
            [*command, "--concurrency=1", "-l", "INFO"],
            cwd=MINIMAL,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: " ready." in path.read_text(), "the worker was ready", timeout=60)
        yield path
    finally:
        print(path.read_text())
        worker.terminate()
        try:
            worker.wait(30)
        finally:
            worker.kill()


def test_the_minimal_example_does_what_its_readme_shows(
    environment: dict[str, str], log: Path
) -> None:
    """
    The session in the README is typed as it stands: a duplicate is refused.

    What its caller gets is the result of the one run.
    """
    session = subprocess.run(
        [sys.executable, "-m", "doctest", "-v", "README.md"],
        cwd=MINIMAL,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert session.returncode == 0, session.stdout + session.stderr
    assert "6 passed" in session.stdout
    assert log.read_text().count("received") == 1
