"""
Beat's schedule as JSON, so that a site can hand it to a process.

    {entry name: {"task", "schedule", "args", "kwargs", "options",
                  "once": True, {options}, {"Once": {options}} or False,
                  "place": where once is written, one of PLACES}}

A schedule is a number of seconds, {"seconds": 60, "relative": true},
{"crontab": {fields}}, {"solar": {"event", "lat", "lon"}} or {"rush_hour": seconds}.
An argument {"lazy": true} is a BeatLazyFunc, which gives another value for each tick.
"""

import time
from datetime import datetime
from typing import Any, Final

from celery import Celery
from celery.beat import BeatLazyFunc
from celery.schedules import crontab, schedstate, schedule, solar

Entry = dict[str, Any]

PLACES: Final = ("top", "options", "add_periodic_task", "headers")
"""Where `once` may be written in an entry of the configuration."""


def declare_schedule(app: Celery, entries: dict[str, Entry], *, guarded: bool) -> None:
    """
    Write entries into the configuration of an app, as users do.

    Without the library `once` is left out, as users have to who uninstall it, or plain
    beat does not start. In headers it does no harm, unless it is an object of ours.
    """
    static: dict[str, Entry] = {}
    for name, entry in entries.items():
        place = entry.get("place", "top")
        once = "once" in entry and (guarded or (place == "headers" and not is_object(entry)))
        if place == "add_periodic_task":
            add_when_configured(app, name, entry, once=once)
        else:
            static[name] = plain_entry(entry) | (place_once(entry, place) if once else {})
    app.conf.beat_schedule = static


def plain_entry(entry: Entry) -> Entry:
    """Return the entry as plain Celery knows it."""
    parts = {key: entry[key] for key in ("task", "kwargs", "options") if key in entry}
    args = [stamp_of(each) for each in entry.get("args", ())]
    return parts | {"schedule": schedule_of(entry["schedule"]), "args": args}


def place_once(entry: Entry, place: str) -> Entry:
    """Return the part of an entry in which `once` is written."""
    options, once = dict(entry.get("options", {})), once_of(entry["once"])
    if place == "top":
        return {"once": once}
    if place == "options":
        return {"options": {**options, "once": once}}
    headers = {**options.get("headers", {}), "once": once}
    return {"options": {**options, "headers": headers}}


def add_when_configured(app: Celery, name: str, entry: Entry, *, once: bool) -> None:
    """Call `add_periodic_task` where Celery's documentation says one should."""

    def add(sender: Celery, **_: Any) -> None:
        plain = plain_entry(entry)
        options = plain.get("options", {})
        signature = sender.signature(plain["task"], plain["args"], plain.get("kwargs", {}))
        extra = {"once": once_of(entry["once"])} if once else {}
        sender.add_periodic_task(plain["schedule"], signature, name=name, **options, **extra)

    app.on_after_configure.connect(add, weak=False)


def schedule_of(value: Any) -> Any:
    """Make Celery's schedule from its JSON."""
    if not isinstance(value, dict):
        return value
    if "crontab" in value:
        return crontab(**value["crontab"])
    if "solar" in value:
        return solar(**value["solar"])
    if "rush_hour" in value:
        return RushHour(value["rush_hour"])
    return schedule(value["seconds"], relative=value.get("relative", False))


class RushHour(schedule):  # type: ignore[misc]  # Celery has no types
    """A user's own schedule: hourly, it says, but in the rush hour it says when it is due."""

    def __init__(self, seconds: float) -> None:
        super().__init__(3600)
        self._often = seconds

    def is_due(self, last_run_at: datetime) -> Any:
        """As Celery's documentation shows for a schedule that changes."""
        left = self._often - (self.now() - last_run_at).total_seconds()
        return schedstate(left <= 0, self._often if left <= 0 else left)

    def __reduce__(self) -> Any:
        return RushHour, (self._often,)


def is_object(entry: Entry) -> bool:
    """Whether `once` is an `Once`, which exists only where the library does."""
    return isinstance(entry["once"], dict) and "Once" in entry["once"]


def once_of(value: Any) -> Any:
    """Make what users write as `once` from its JSON."""
    if is_object({"once": value}):
        from onceguard import Once  # noqa: PLC0415  the harness works without

        return Once(**value["Once"])
    return value


def stamp_of(argument: Any) -> Any:
    """Make a lazy argument from its JSON."""
    return BeatLazyFunc(stamp) if argument == {"lazy": True} else argument


def stamp() -> str:
    """When an argument was computed."""
    return str(time.monotonic_ns())
