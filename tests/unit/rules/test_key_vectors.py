"""Keys stay what they were: between releases, Python versions and hash seeds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
RECORDED: dict[str, str] = json.loads((HERE / "key_vectors.json").read_text("utf-8"))


def keys_of_a_process(hash_seed: str) -> dict[str, str]:
    found = subprocess.run(
        [sys.executable, HERE / "key_cases.py"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    keys: dict[str, str] = json.loads(found.stdout)
    return keys


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_keys_are_those_recorded_under_any_hash_seed(hash_seed: str) -> None:
    """
    A key that changes lets two runs of one call overlap while a release rolls out.

    A publisher, a worker and beat are processes of their own, each with its
    own hash seed; a set written in the order of its hashes would differ.
    """
    assert keys_of_a_process(hash_seed) == RECORDED


def test_enough_is_recorded() -> None:
    """An emptied file of vectors would hold nothing and still pass."""
    assert len(RECORDED) >= 60


def test_recorded_keys_can_be_read_and_stored() -> None:
    """Records part their fields by spaces, and a key stands in redis-cli and logs."""
    odd = [
        key
        for key in RECORDED.values()
        if not (0 < len(key) <= 120 and all("!" <= character <= "~" for character in key))
    ]
    assert odd == []
