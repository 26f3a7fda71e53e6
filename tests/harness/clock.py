"""Wrong wall clocks for programs, and a right clock for their witness."""

import ctypes
import functools
import os
import subprocess
import time
from typing import Final


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


FAKED: Final = bool({"FAKETIME", "FAKETIME_TIMESTAMP_FILE"} & set(os.environ))


def preload() -> str | None:
    """What makes a process load libfaketime; None where it is not installed."""
    command = ["faketime", "-f", "+0s", "sh", "-c", "echo $LD_PRELOAD"]
    try:
        return subprocess.check_output(command, text=True, timeout=60).strip()
    except OSError:
        return None


def skewed(library: str, seconds: float) -> dict[str, str]:
    """
    Environment of a beat whose wall clock is wrong by so much.

    The monotonic clock is wrong too: where it is not, libfaketime makes `time.sleep`
    fail, which is how beat waits. Such a process must not wait for a lock with a
    timeout. (Workers do, and do not sleep: see the tests of G11.)
    """
    return {"LD_PRELOAD": library, "FAKETIME": f"{seconds:+.3f}"}


def monotonic_ns() -> int:
    """Tell the time that all processes of this machine agree on, whatever libfaketime says."""
    if not FAKED:
        return time.monotonic_ns()
    now = _Timespec()
    _libc().clock_gettime(time.CLOCK_MONOTONIC, ctypes.byref(now))
    return int(now.seconds) * 1_000_000_000 + int(now.nanoseconds)


@functools.cache
def _libc() -> ctypes.CDLL:
    """Libc itself, by name: libfaketime stands before it only in the global scope."""
    return ctypes.CDLL("libc.so.6")
