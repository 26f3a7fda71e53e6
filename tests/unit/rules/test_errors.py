"""Errors survive every way in which Celery hands them on, and name the way out."""

from __future__ import annotations

import copy
import pickle

import pytest
from celery import Celery

from onceguard.rules.errors import (
    AlreadyQueued,
    InvalidOptions,
    InvalidSettings,
    KeyNotComputable,
    LeaseLost,
    OnceError,
    StoreUnavailable,
    TooManyDeliveries,
)
from onceguard.rules.holder import Holder

RUNNING = Holder(
    state="lease",
    message_id="m1",
    nonce="n1",
    attempt=2,
    fencing_token=1_700_000_000_000_007,
    since=1_700_000_000.000001,
    where="celery@host/4711",
    task_id="import of today",
)
QUEUED = Holder(
    state="claim",
    message_id="m1",
    nonce="-",
    attempt=0,
    fencing_token=0,
    since=1_700_000_000.0,
    where="-",
    task_id="t1",
)
ERRORS = [
    InvalidOptions("tasks.sync", ["one.", "two."]),
    InvalidSettings("app", ["one."]),
    KeyNotComputable("tasks.sync", "user", "app.User"),
    KeyNotComputable("tasks.sync", "", "", "the function of key failed"),
    AlreadyQueued("tasks.sync(x=1)", RUNNING, 12.5),
    AlreadyQueued("tasks.sync(x=1)", QUEUED, 3),
    LeaseLost("tasks.sync(x=1)", 7),
    StoreUnavailable("redis://host:6379/0", "claim", "timed out"),
    TooManyDeliveries("tasks.sync(x=1)", 5, 5),
]


def facts(error: BaseException) -> object:
    return type(error), str(error), vars(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickle_and_copy(error: OnceError) -> None:
    """A pool process hands its exception to the main process by pickle."""
    assert facts(pickle.loads(pickle.dumps(error))) == facts(error)  # noqa: S301
    assert facts(copy.copy(error)) == facts(error)
    assert facts(copy.deepcopy(error)) == facts(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_an_error_survives_a_result_backend(error: OnceError, serializer: str) -> None:
    """
    `result.get()` raises what the task raised, with its attributes.

    Celery's JSON results keep the class and `args`; a constructor that does
    not take its own `args` comes back as a plain Exception.
    """
    backend = Celery(backend="cache+memory://", set_as_current=False).backend
    stored = backend.prepare_exception(error, serializer)
    if serializer == "json":
        stored = backend.decode(backend.encode(stored))
    assert facts(backend.exception_to_python(stored)) == facts(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_can_be_caught_as_one(error: OnceError) -> None:
    """One base class is what `except` in a view names."""
    assert isinstance(error, OnceError)


def test_wrong_declarations_are_value_errors_and_keys_type_errors() -> None:
    """Code that knows nothing of onceguard handles them as what they are."""
    assert issubclass(InvalidOptions, ValueError)
    assert issubclass(InvalidSettings, ValueError)
    assert issubclass(KeyNotComputable, TypeError)


def test_all_problems_stand_in_one_error() -> None:
    """Nobody should have to start a worker once for each typing error."""
    assert str(InvalidOptions("tasks.sync_user", ["One.", "Two."])) == (
        "tasks.sync_user has invalid once options:\n  - One.\n  - Two."
    )
    assert InvalidOptions("t", ["One."]).problems == ("One.",)
    assert "invalid once_* settings:\n  - One." in str(InvalidSettings("app", ["One."]))


def test_already_queued_names_key_holder_time_and_way_out() -> None:
    """It ends up in somebody's error tracker, where it has to explain itself."""
    text = str(AlreadyQueued("tasks.sync(x=1)", RUNNING, 12.5))
    for fact in ("tasks.sync(x=1)", "import of today", "celery@host/4711", "12.5 s", "skip"):
        assert fact in text


def test_a_holder_says_where_and_since_when() -> None:
    """Seconds of UTC, for the reader may be on another host than the worker."""
    assert str(RUNNING) == (
        "running as task import of today on celery@host/4711 "
        "since 2023-11-14 22:13:20+00:00 (attempt 2)"
    )
    assert str(QUEUED) == "queued as task t1 since 2023-11-14 22:13:20+00:00"


def test_a_record_is_read_as_it_was_written() -> None:
    """The scripts compare records whole; a microsecond lost would be another holder."""
    record = "lease m1 n1 2 1700000000000007 1700000000000001 celery@host/4711 import of today"
    assert Holder.parse(record) == RUNNING
    assert RUNNING.record() == record
    assert Holder.parse(QUEUED.record()) == QUEUED


@pytest.mark.parametrize("record", ["", "claim m1", "token", "lock a b 1 2 3 w t", "lease"])
def test_what_someone_else_wrote_is_no_holder(record: str) -> None:
    """Another program's key in our place must not be taken for a run."""
    with pytest.raises(ValueError, match="not the record of a holder"):
        Holder.parse(record)
