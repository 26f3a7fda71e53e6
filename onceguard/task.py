"""The base class of guarded tasks."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from celery import Task

from onceguard.install import setup
from onceguard.publish.claim import publish
from onceguard.rules.errors import InvalidOptions
from onceguard.rules.keys import KeyMaker
from onceguard.rules.options import Once, check_signature, override, parse
from onceguard.store.bound import guard_of
from onceguard.worker.guarding import REQUEST, connect, enter, guard_call

_INHERIT = "Let it inherit from onceguard.worker.request.GuardedRequest."


class QueueOnce(Task):  # type: ignore[misc]
    """
    A task that runs once: not twice at a time, not piled up, not lost.

    ``@app.task(base=QueueOnce, once={...})``. Messages are acknowledged when
    their run is over (``acks_late``) and delivered again when their process dies
    (``reject_on_worker_lost``), unless the task says otherwise.

    Attributes:
        once: True, a dict of options, `Once`, or False to switch guarding off.
            Also through ``task_annotations``, and for one call as
            ``apply_async(..., once=...)``.
        once_options: The same, checked and completed with ``once_defaults``;
            None if switched off.
        once_track_started: Whether STARTED is stored, as ``track_started`` was set.
    """

    abstract = True
    acks_late = True
    reject_on_worker_lost = True
    Request = REQUEST
    once: ClassVar[Any] = True
    once_options: ClassVar[Once | None] = None
    once_track_started: ClassVar[bool] = False
    _once_signature: ClassVar[inspect.Signature]

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """
        Check the declaration, and install the worker's part.

        Raises:
            InvalidOptions: With everything that is wrong with ``once``.
            InvalidSettings: With everything that is wrong with ``once_*``.
        """
        super().on_bound(app)
        settings = guard_of(app).settings
        cls._once_signature = _signature(cls)
        _check_request(cls)
        cls.once_options = None
        if cls.once is not False and cls.once is not None:
            cls.once_options = parse(cls.once, owner=cls.name, defaults=settings.defaults)
            check_signature(cls.once_options, cls._once_signature, cls.name)
        cls.once_track_started = cls.once_track_started or bool(cls.track_started)
        cls.track_started = False  # STARTED is stored when the run is known to begin
        guard_call(cls, QueueOnce.__call__)
        connect()
        setup(app)

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, **options: Any
    ) -> Any:
        """
        Publish a call, if no equal one is queued or running.

        As Celery's, with ``once`` among the options: True, False or a dict that
        replaces options of the task for this call.

        Raises:
            AlreadyQueued: An equal call has the key; nothing was sent.
            StoreUnavailable: The lock server did not answer; nothing was sent.
            KeyNotComputable: An argument cannot be part of a key; nothing was sent.
        """
        return publish(self, super().apply_async, args, kwargs, {**options, "task_id": task_id})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a delivered message under its lease; a direct call just runs."""
        return enter(self, self.run, args, kwargs, entered=True)

    def once_with(self, value: Any, *, beat: bool = False) -> Once | None:
        """
        Complete the options of one call, or of a beat entry, with those of the task.

        Raises:
            InvalidOptions: With everything that is wrong with *value*.
        """
        if value is False:
            return None
        owner = f"a beat entry of {self.name}" if beat else f"a call of {self.name}"
        if self.once_options is None:
            defaults = guard_of(self.app).settings.defaults
            once = parse(value, owner=owner, defaults=defaults, beat=beat)
        else:
            once = override(self.once_options, value, owner, beat=beat)
        check_signature(once, self._once_signature, owner)
        return once

    def once_key(self, args: Any, kwargs: Any, once: Once) -> str:
        """
        Compute the key of a call.

        Raises:
            TypeError: The task cannot be called like this.
            KeyNotComputable: An argument has no canonical text.
        """
        if once is self.once_options:
            maker = self.__dict__.get("_once_maker")
            if maker is None:
                maker = KeyMaker(self.name, self._once_signature, once)
                self.__dict__["_once_maker"] = maker
        else:
            maker = KeyMaker(self.name, self._once_signature, once)
        return str(maker(args, kwargs))


def _signature(cls: type[QueueOnce]) -> inspect.Signature:
    """Return the task's signature as callers see it, without a bound ``self``."""
    run = inspect.getattr_static(cls, "run")
    if isinstance(run, (staticmethod, classmethod)):
        return inspect.signature(getattr(cls, "run"))  # noqa: B009 - resolves the descriptor
    signature = inspect.signature(run)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _check_request(cls: Any) -> None:
    """Refuse a Request class that would leave the task's leases unrenewed."""
    if cls.Request == REQUEST:
        return
    from onceguard.worker.request import GuardedRequest  # noqa: PLC0415 - publishers need none

    if not (isinstance(cls.Request, type) and issubclass(cls.Request, GuardedRequest)):
        raise InvalidOptions(
            cls.name,
            [f"Request is {cls.Request!r}, which renews no lease. {_INHERIT}"],
        )
