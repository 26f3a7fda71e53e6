"""How long a claim may live, from the options of the call that it is for."""

import time
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from onceguard.rules.lives import claim_life, delay, seconds_until

NOW = datetime(2030, 1, 15, 12, 0, tzinfo=timezone.utc)
BERLIN = ZoneInfo("Europe/Berlin")
IN_A_MINUTE = NOW + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("instant", "seconds"),
    [
        (None, 0.0),
        (90, 90.0),
        (1.5, 1.5),
        (IN_A_MINUTE, 60.0),
        (IN_A_MINUTE.replace(tzinfo=None), 60.0),
        (IN_A_MINUTE.astimezone(BERLIN), 60.0),
        ("2030-01-15T12:01:00+00:00", 60.0),
        ("2030-01-15T12:01:00Z", 60.0),
        ("2030-01-15T12:01:00", 60.0),
        ("2030-01-15T13:01:00+01:00", 60.0),
        ("2030-01-15T11:59:00+00:00", -60.0),
    ],
)
def test_an_instant_is_taken_as_celery_takes_it(instant: object, seconds: float) -> None:
    """Seconds, aware and naive datetimes (UTC), and the text that is in a message."""
    assert seconds_until(instant, NOW) == seconds


def test_a_naive_instant_is_not_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts differ in that; Celery means UTC."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert seconds_until(IN_A_MINUTE.replace(tzinfo=None), NOW) == 60.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 0.0),
        ({"countdown": 20}, 20.0),
        ({"countdown": 0, "eta": IN_A_MINUTE}, 60.0),
        ({"countdown": 20, "eta": IN_A_MINUTE}, 20.0),
        ({"countdown": None, "eta": None}, 0.0),
        ({"eta": NOW - timedelta(hours=1)}, 0.0),
        ({"countdown": -5}, 0.0),
    ],
)
def test_a_call_is_due_after_its_delay(options: dict[str, Any], seconds: float) -> None:
    """A countdown wins over an ETA, as in Celery; what is past is due now."""
    assert delay(options, NOW) == seconds


@pytest.mark.parametrize(
    ("options", "expires", "life"),
    [
        ({}, None, 600.0),
        ({"countdown": 100}, None, 700.0),
        ({"eta": IN_A_MINUTE}, None, 660.0),
        ({"expires": 90}, None, 90.0),
        ({"expires": IN_A_MINUTE}, None, 60.0),
        ({"expires": 1000}, None, 600.0),
        ({"expires": 650, "countdown": 100}, None, 650.0),
        ({}, 90, 90.0),
        ({"expires": None}, 90, 90.0),
        ({"expires": 500}, 90, 500.0),
        ({"expires": NOW - timedelta(hours=1)}, None, 1.0),
        ({"expires": 0}, 90, 1.0),
    ],
)
def test_a_claim_lives_from_now_to_unique_for_after_its_call_is_due_or_expires(
    options: dict[str, Any], expires: object, life: float
) -> None:
    """
    Whichever is first; what the call says counts before what the task says.

    A claim that outlived an expired message, which the broker may have dropped without
    a word, would block its key for nothing; one that ended before a long countdown was
    over would let a second call in.
    """
    assert claim_life(600.0, options, expires, NOW) == life
