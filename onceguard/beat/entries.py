"""Where a schedule entry says ``once``, and what it means."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from onceguard.rules.errors import InvalidOptions, KeyNotComputable
from onceguard.rules.keys import KeyMaker
from onceguard.rules.options import Once, OverlapPolicy, Scope, parse
from onceguard.store.bound import guard_of

if TYPE_CHECKING:
    from collections.abc import MutableMapping

logger = logging.getLogger("celery.beat")

NAME = "once"

_Nothing = Enum("_Nothing", "SAID")
SAID_NOTHING = _Nothing.SAID

_unheard: list[InvalidOptions] = []


def normalise(schedule: MutableMapping[str, Any] | None) -> None:
    """
    Move ``once`` of every entry to where all schedulers keep it: among its headers.

    As a key of the entry it would end beat, and among the options django-celery-beat
    and sqlalchemy-celery-beat would lose it.
    """
    if schedule is None:
        return
    for name, entry in list(schedule.items()):
        schedule[name] = normalised(name, entry)


def normalised(name: str, entry: Any) -> Any:
    """Return an entry with ``once`` among its headers; the same one if it says none."""
    if not isinstance(entry, Mapping):
        return entry
    options = dict(entry.get("options") or {})
    headers = dict(options.get("headers") or {})
    places = [entry, options, headers]
    said = [place[NAME] for place in places if NAME in place]
    if not said:
        return entry
    options.pop(NAME, None)
    headers[NAME] = _portable(name, said[0])
    rest = {key: value for key, value in entry.items() if key != NAME}
    return {**rest, "options": {**options, "headers": headers}}


def _portable(name: str, said: Any) -> Any:
    """Turn what was said into what a database row can hold."""
    if said is False or said is None:
        return False
    try:
        once = parse(said, owner=owner(name), beat=True)
        return _as_json(name, once) or True
    except InvalidOptions as error:
        complain(error)
        _unheard.append(error)
        return True


def complain_again() -> None:
    """Repeat what was wrong with a configured schedule, now that beat has a log."""
    while _unheard:
        complain(_unheard.pop(0))


def _as_json(name: str, once: Once) -> dict[str, Any]:
    if callable(once.key) and "key" in once.given:
        problem = (
            "key is a function, which a scheduler cannot store. Write a template such as "
            "'account:{account_id}', or give the function to the task."
        )
        raise InvalidOptions(owner(name), [problem])
    return {each: _plain(getattr(once, each)) for each in sorted(once.given)}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def owner(name: str) -> str:
    """Name an entry in errors."""
    return f"beat entry {name!r}"


def complain(error: Exception) -> None:
    """Say that an entry's ``once`` is wrong; it is guarded as ``once=True`` then."""
    logger.error("%s\n  It is guarded as if it said once=True.", error)


def cleaned(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry's options without what it says for us."""
    rest = {key: value for key, value in options.items() if key != NAME}
    if rest.get("headers"):
        rest["headers"] = {k: v for k, v in rest["headers"].items() if k != NAME}
    return rest


class Declarations:
    """
    What the entries of a scheduler say, each complained about once.

    Args:
        app: The app whose tasks they send.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._parsed: dict[str, tuple[Any, Once | None]] = {}
        self._keyless: set[str] = set()
        self._unknown: set[str] = set()

    def once_of(self, entry: Any) -> Once | None:
        """
        Return the options of an entry with those of its task; None if it is unguarded.

        A task with our base class is guarded by its own options where the entry
        says nothing.
        """
        said = _said(entry)
        known = self._parsed.get(entry.name)
        if known is None or known[0] != (entry.task, said):
            known = self._parsed[entry.name] = (entry.task, said), self._parse(entry, said)
        return known[1]

    def _parse(self, entry: Any, said: Any) -> Once | None:
        task = self._app.tasks.get(entry.task)
        guarded = hasattr(task, "once_with")
        if said is SAID_NOTHING:
            return _of_task(task) if guarded else None
        if said is False:
            return None
        try:
            return self._complete(entry, task if guarded else None, said)
        except InvalidOptions as error:
            complain(error)
            return self._complete(entry, task if guarded else None, True)

    def _complete(self, entry: Any, task: Any, said: Any) -> Once | None:
        if task is not None:
            once: Once | None = task.once_with(said, beat=True)
            return once
        defaults = guard_of(self._app).settings.defaults
        return parse(said, owner=owner(entry.name), defaults=defaults, beat=True)

    def key_of(self, entry: Any, once: Once, args: Any, kwargs: Any) -> str:
        """
        Compute what must be unique; the entry itself where there is no other key.

        Of a task that this process does not know the arguments are taken as they
        are written, for nobody can bind them to its signature.
        """
        task = self._app.tasks.get(entry.task)
        try:
            if hasattr(task, "once_key"):
                return str(task.once_key(args, kwargs, once))
            if task is None:
                self._say_unknown(entry)
                _check_named(entry.task, once, kwargs)
            return KeyMaker(entry.task, _signature(task), once)(args, kwargs)
        except (TypeError, KeyNotComputable) as error:
            if entry.name not in self._keyless:
                self._keyless.add(entry.name)
                logger.error(  # noqa: TRY400 - the sentence says it all
                    "%s: %s\n  Its ticks are kept from overlapping one another only.",
                    owner(entry.name), error,
                )  # fmt: skip
            return KeyMaker(f"beat:{entry.name}", inspect.Signature(), parse(True, owner=""))()

    def _say_unknown(self, entry: Any) -> None:
        if entry.name not in self._unknown:
            self._unknown.add(entry.name)
            logger.warning(
                "%s: beat does not know the task %r. Its ticks are kept from overlapping one "
                "another only, not equal calls from elsewhere. Import the task in beat, too.",
                owner(entry.name), entry.task,
            )  # fmt: skip


def _of_task(task: Any) -> Once | None:
    """Guard a task's ticks as its calls are: those that claim nothing are all sent."""
    if task.once_options is None:
        return None
    freely = task.once_options.scope is Scope.WHILE_EXECUTING
    policy = OverlapPolicy.ALLOW_ALL if freely else task.once_options.overlap_policy
    once: Once | None = task.once_with({"overlap_policy": policy}, beat=True)
    return once


def _said(entry: Any) -> Any:
    options = entry.options or {}
    headers = options.get("headers") or {}
    said = options.get(NAME, headers.get(NAME, SAID_NOTHING))
    return False if said is None else said


def _check_named(task: str, once: Once, kwargs: Mapping[str, Any]) -> None:
    for name in once.keys or ():
        if name not in kwargs:
            reason = "beat does not know the task, and the entry's kwargs do not have it"
            raise KeyNotComputable(task, name, "", reason)


def _any(*args: Any, **kwargs: Any) -> None:
    """Take anything, as a task does that this process does not know."""


def _signature(task: Any) -> inspect.Signature:
    return inspect.signature(_any if task is None else task.run)
