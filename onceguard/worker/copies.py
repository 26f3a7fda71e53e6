"""Publish the running request's message again, as it came."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery import Task
from kombu.serialization import registry

from onceguard.rules import header as headers

if TYPE_CHECKING:
    from collections.abc import Iterator


def send_again(task: Any, header: headers.Header, *, expires: bool) -> None:
    """
    Publish the running request's message as it came: same task, arguments, retries.

    Goes past the task's own ``apply_async``: this is no new call.
    """
    request = task.request
    same = task.signature_from_request(request, countdown=header.delay, retries=request.retries)
    options = {**same.options, "add_to_parent": False, "countdown": header.delay}
    options["headers"] = {**_clean(options.get("headers")), headers.NAME: header.dump()}
    options["ignore_result"] = ignores_result(task, request)
    serializer = registry.type_to_name.get(header.content_type)
    if serializer:
        options["serializer"] = serializer
    if not expires:
        options["expires"] = None
    with _confirming(task.app) as connection:
        Task.apply_async(task, same.args, same.kwargs, connection=connection, **options)


@contextmanager
def _confirming(app: Any) -> Iterator[Any]:
    """
    Give a connection on which the broker confirms what it takes; None where all do.

    A connection to RabbitMQ that died in silence takes a message and loses it, and
    the delivery that it is a copy of is acknowledged over another one.
    """
    if app.connection_for_write().transport.driver_type != "amqp":
        yield None
        return
    own = app.conf.broker_transport_options or {}
    confirming = {**own, "confirm_publish": True}
    with app.connection_for_write(transport_options=confirming) as connection:
        yield connection


def _clean(given: Any) -> dict[str, Any]:
    """Return custom headers without what a delivery added to them."""
    return {name: value for name, value in (given or {}).items() if name != headers.NAME}


def ignores_result(task: Any, request: Any) -> bool:
    """Whether the call's result is wanted by nobody; the call's word goes first."""
    own = request.__dict__.get("ignore_result")
    return bool(task.ignore_result if own is None else own)
