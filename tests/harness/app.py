"""
The Celery app that workers and publishers of a site load.

Workers get their settings as JSON in `HARNESS_SETTINGS`:

    conf     Celery settings, and `queue` (a queue to declare, with its arguments)
    once     options of all guarded tasks
    tasks    {task name: {"once": {...}, other task attributes}}
    guarded  False: plain Celery tasks, to see what the tests say without the library
    ledger   path of the ledger

`HARNESS_SLOW_RECEIVER` is how many seconds a receiver of once_lease_lost takes.
"""

import json
import os
import time
from typing import Any

from celery import Celery, Task
from celery.signals import worker_ready
from kombu.entity import Exchange, Queue

from tests.harness.bodies import BODIES, HANDLED
from tests.harness.ledger import Ledger

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
    app = Celery("harness", set_as_current=False, fixups=[])
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
        extra = {"base": guard(mixin), "once": once} if settings["guarded"] else UNGUARDED
        app.task(body, name=name, bind=True, shared=False, **extra, **given)
    for name, body in PLAIN.items():
        app.task(BODIES[body], name=name, bind=True, shared=False, base=Task)


UNGUARDED: Settings = {"base": Task, "acks_late": True, "reject_on_worker_lost": True}
"""What a careful user sets without the library."""


def guard(mixin: Any = None) -> Any:
    """Import the library only where it is used: the harness proves itself without."""
    from onceguard import QueueOnce  # noqa: PLC0415

    return type("Both", (mixin, QueueOnce), {}) if mixin else QueueOnce


def announce(sender: Any, **_: Any) -> None:
    """Write into the ledger that this worker consumes from now on."""
    Ledger(sender.app.conf.harness_ledger).note("ready", sender.hostname)


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
    if settings["guarded"]:
        listen(settings["ledger"])
        if "HARNESS_SLOW_RECEIVER" in os.environ:
            dawdle(float(os.environ["HARNESS_SLOW_RECEIVER"]))
    app = make_app(settings)
