"""Installing the parts for beat and worker on an app."""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from celery import signals

from onceguard.beat.entries import complain_again, normalise, normalised
from onceguard.rules.errors import InvalidSettings
from onceguard.store.bound import guard_of
from onceguard.store.danger import Findings, check_server
from onceguard.worker.guarding import guard_plain_tasks

logger = logging.getLogger("onceguard")

_apps: WeakSet[Any] = WeakSet()
_found: WeakKeyDictionary[Any, Findings] = WeakKeyDictionary()


def setup(app: Any) -> None:
    """
    Install what guards an app's schedule; only needed where no task has our base class.

    Beat reads ``once`` on schedule entries then, and workers guard the tasks that
    such entries send, whatever their base class. ``imports = ("onceguard.auto",)``
    does the same. Call it before the app's configuration is complete or after;
    again does nothing.

    Args:
        app: A Celery app.
    """
    app = _itself(app)
    if app not in _apps:
        _apps.add(app)
        _watch_periodic_tasks(app)
        app.on_after_finalize.connect(_finalized, weak=False, dispatch_uid="onceguard")
        for last in (signals.import_modules, signals.after_setup_logger):
            last.connect(_schedulers_come, weak=False, dispatch_uid="onceguard")
        signals.beat_init.connect(_beat_starts, weak=False, dispatch_uid="onceguard")
        signals.worker_init.connect(_worker_starts, weak=False, dispatch_uid="onceguard")
        signals.celeryd_after_setup.connect(
            _worker_has_its_log, weak=False, dispatch_uid="onceguard"
        )
    if app.finalized:
        _finalized(app)


def _watch_periodic_tasks(app: Any) -> None:
    """Normalise what ``add_periodic_task`` adds after the app was finalized, too."""
    add = getattr(app, "_add_periodic_task", None)
    if add is not None:

        def add_normalised(key: str, entry: Any, *args: Any, **kwargs: Any) -> Any:
            return add(key, normalised(key, entry), *args, **kwargs)

        app._add_periodic_task = add_normalised  # noqa: SLF001 - add_periodic_task ends there


def _finalized(sender: Any, **_: Any) -> None:
    normalise(sender.conf.beat_schedule)


def _schedulers_come(**_: Any) -> None:
    """
    Normalise what was added to a schedule since the app was finalized.

    Beat imports the configured modules, and sets up its log, right before it makes its
    scheduler.
    """
    for app in list(_apps):
        if app.finalized:
            _finalized(app)


def _itself(app: Any) -> Any:
    """Return the app that a proxy such as ``celery.current_app`` stands for."""
    return getattr(app, "_get_current_object", lambda: app)()


def _beat_starts(sender: Any, **_: Any) -> None:
    app = _itself(sender.app)
    if app in _apps and _enabled(app):
        complain_again()
        _say(_look_at_server(app))
        from onceguard.beat.hook import wrap  # noqa: PLC0415 - only beat needs celery.beat

        try:
            wrap(sender.scheduler, app)
        except Exception:
            logger.critical(
                "onceguard cannot guard this scheduler: its ticks are sent UNGUARDED. "
                "Please report this.",
                exc_info=True,
            )


def _worker_starts(sender: Any, **_: Any) -> None:
    app = _itself(sender.app)
    if app in _apps and _enabled(app):
        _found[app] = _look_at_server(app)
        _finalized(app)
        guard_plain_tasks(app)


def _enabled(app: Any) -> bool:
    """
    Whether to guard anything, and something to keep locks on.

    Wrong settings end the process, as wrong ones of Celery's do: an exception in a
    receiver of a signal would only be logged.
    """
    try:
        guard = guard_of(app)
        held_somewhere = guard.store is not None
    except InvalidSettings as error:
        raise SystemExit(str(error)) from error
    return guard.settings.enabled and held_somewhere


def _look_at_server(app: Any) -> Findings:
    """End the process if the lock server can keep no locks; go on if it is only away."""
    guard = guard_of(app)
    settings = guard.settings
    try:
        found = check_server(
            guard.address, prefix=settings.prefix, socket_timeout=settings.socket_timeout
        )
    except Exception as error:  # noqa: BLE001 - beat would go on unguarded
        said = guard.address.hide(repr(error))
        return Findings(warnings=(f"the lock server could not be looked at: {said}",))
    if found.refusals:
        raise SystemExit("onceguard: " + " ".join(found.refusals))
    return found


def _say(found: Findings) -> None:
    for note in found.notes:
        logger.debug("%s", note)
    for warning in found.warnings:
        logger.warning("%s", warning)


def _worker_has_its_log(instance: Any, **_: Any) -> None:
    """Say what was found when the worker began, before it had a log."""
    _say(_found.pop(_itself(instance.app), Findings()))
