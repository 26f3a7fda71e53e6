"""
The Celery app that workers, beats and publishers of a site load.

They get their settings as JSON in `HARNESS_SETTINGS`:

    conf     Celery settings, and `queue` (a queue to declare, with its arguments)
    once     options of all guarded tasks
    tasks    {task name: {"once": {...}, other task attributes}}
    guarded  False: plain Celery tasks, to see what the tests say without the library
    ledger   path of the ledger
    main     name of the app
    base     "QueueOnce", or "Task" for tasks that are not guarded by their class
    install  how the library gets in beside base=QueueOnce: "setup", "auto" or None
    declares False: an app that knows no task, as that of many beats
    schedule entries for beat, see `tests.harness.schedule`

`HARNESS_SLOW_RECEIVER` is how many seconds a receiver of once_lease_lost takes,
`HARNESS_SLOW_PUBLISH` how long a beat's publish takes after the message was sent.
"""

import json
import os
import sys
import time
from typing import Any

from celery import Celery, Task
from celery.signals import after_task_publish, beat_init, worker_ready
from kombu.entity import Exchange, Queue

from tests.harness.bodies import BODIES, HANDLED
from tests.harness.ledger import Ledger
from tests.harness.program import MARK
from tests.harness.schedule import declare_schedule

Settings = dict[str, Any]

PLAIN = {"plain": "work", "plain_held": "held"}
"""Tasks without a guard on a guarded site: the others, which must run on."""


def make_app(settings: Settings, *, tasks: bool = True) -> Celery:
    """
    Build an app from a site's settings.

    Args:
        settings: As above.
        tasks: False builds a publisher that knows no task, for `send_task`.
    """
    fixups: list[str] | None = None if "DJANGO_SETTINGS_MODULE" in os.environ else []
    app = Celery(settings.get("main", "harness"), set_as_current=False, fixups=fixups)
    conf = dict(settings["conf"])
    if queue := conf.pop("queue", None):
        exchange = Exchange(queue["name"], type=queue.get("exchange_type", "direct"))  # type: ignore[no-untyped-call]
        arguments = queue["arguments"]
        routing_key = queue["name"]
        conf["task_queues"] = [
            Queue(queue["name"], exchange, routing_key, queue_arguments=arguments)  # type: ignore[no-untyped-call]
        ]
    app.conf.update(conf, harness_ledger=settings["ledger"])
    if tasks:
        declare(app, settings)
    return app


def declare(app: Celery, settings: Settings) -> None:
    """
    Declare every body as a task, guarded unless the site is not.

    None is shared: Celery would hand it on to every later app of this process.
    """
    overrides = settings["tasks"]
    for name, (body, attributes) in ({k: (v, {}) for k, v in BODIES.items()} | HANDLED).items():
        given = attributes | overrides.get(name, {})
        mixin = given.pop("mixin", None)
        once = {"keys": ["name"], **settings["once"], **given.pop("once", {})}
        extra = {"base": guard(mixin), "once": once} if by_class(settings) else UNGUARDED
        app.task(body, name=name, bind=True, shared=False, **extra, **given)
    for name, body in PLAIN.items():
        app.task(BODIES[body], name=name, bind=True, shared=False, base=Task)


def by_class(settings: Settings) -> bool:
    """Whether tasks are guarded by their base class."""
    return bool(settings["guarded"]) and settings.get("base", "QueueOnce") == "QueueOnce"


UNGUARDED: Settings = {"base": Task, "acks_late": True, "reject_on_worker_lost": True}
"""What a careful user sets without the library."""


def guard(mixin: Any = None) -> Any:
    """Import the library only where it is used: the harness proves itself without."""
    from onceguard import QueueOnce  # noqa: PLC0415

    return type("Both", (mixin, QueueOnce), {}) if mixin else QueueOnce


def install(app: Celery, how: str | None) -> None:
    """Install the library as projects do that use no base=QueueOnce."""
    if how == "auto":
        app.conf.imports = ("onceguard.auto",)
    if how == "setup":
        import onceguard  # noqa: PLC0415  as in `guard`

        onceguard.setup(app)


def announce(sender: Any, **_: Any) -> None:
    """Write into the ledger that this worker consumes from now on."""
    Ledger(sender.app.conf.harness_ledger).note("ready", sender.hostname)


def announce_beat(sender: Any, **_: Any) -> None:
    """
    Write into the ledger that this beat's loop begins, and from then on what it sends.

    The first message would come late by what kombu imports for it: 0.1 s, and on a loaded
    machine enough to look like the duplicate of the next tick.
    """
    import kombu.transport.redis  # noqa: F401, PLC0415

    ledger, beat = Ledger(sender.app.conf.harness_ledger), os.environ[MARK]
    slow = float(os.environ.get("HARNESS_SLOW_PUBLISH", "0"))

    def note(headers: Any, body: Any, **_: Any) -> None:
        name = str(body[0][0]) if body[0] else "-"
        ledger.note("sent", name, task_id=headers["id"], detail=f"beat={beat}")
        time.sleep(slow)

    after_task_publish.connect(note, weak=False)
    ledger.note("ticking", beat)


def listen(ledger: str) -> None:
    """Write every signal of the library into the ledger: what it says it did."""
    from onceguard import signals  # noqa: PLC0415  as in `guard`

    def note(event: Any, signal: Any, **_: Any) -> None:
        Ledger(ledger).note(signal.name, event.task, task_id=event.task_id, detail=str(event))

    for name in filter(lambda name: name.startswith("once_"), vars(signals)):
        getattr(signals, name).connect(note, weak=False)


def dawdle(seconds: float) -> None:
    """Connect a receiver of once_lease_lost that takes so long, as one that mails does."""
    from onceguard import signals  # noqa: PLC0415  as in `guard`

    def sleep(**_: Any) -> None:
        time.sleep(seconds)

    signals.once_lease_lost.connect(sleep, weak=False)


if "HARNESS_SETTINGS" in os.environ:
    settings = json.loads(os.environ["HARNESS_SETTINGS"])
    worker_ready.connect(announce, weak=False)
    beat_init.connect(announce_beat, weak=False)
    if settings["guarded"]:
        listen(settings["ledger"])
        if "HARNESS_SLOW_RECEIVER" in os.environ:
            dawdle(float(os.environ["HARNESS_SLOW_RECEIVER"]))
    if not settings["guarded"]:
        sys.modules["onceguard"] = None  # type: ignore[assignment]  # as if it were not installed
    app = make_app(settings, tasks=settings.get("declares", True))
    app.set_current()  # as an app that is made in the ordinary way is
    if settings["guarded"]:
        install(app, settings.get("install"))
    declare_schedule(app, settings.get("schedule", {}), guarded=settings["guarded"])
