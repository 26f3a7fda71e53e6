"""Brokers under test: Redis, and RabbitMQ with classic and quorum queues."""

import json
import subprocess
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from kombu.connection import Connection
from kombu.exceptions import OperationalError

from tests.harness.redis_server import RedisServer
from tests.harness.waiting import eventually

RABBITMQ: Final = "amqp://guest:guest@127.0.0.1:5672"

Message = dict[str, Any]
"""A message as it lies in the broker, complete enough to be put there once more."""


def connect(url: str, **options: Any) -> Any:
    """Open a connection of the test's own, which gives up on a broker that hangs."""
    bounds = {"read_timeout": 30, "write_timeout": 30}
    return Connection(url, transport_options=bounds, **options)  # type: ignore[no-untyped-call]


class Broker(ABC):
    """Where a site's messages lie, seen from outside of Celery."""

    kind: str

    @abstractmethod
    def conf(self) -> dict[str, Any]:
        """Celery settings that lead publishers and workers here."""

    @abstractmethod
    def waiting(self) -> int:
        """How many messages lie in the queue, not yet taken by a worker."""

    def load(self) -> int:
        """How many messages lie here at all, as far as can be seen from outside."""
        return self.waiting()

    @abstractmethod
    def capture(self, task_id: str) -> Message:
        """The message of a task that was published and did not end yet."""

    @abstractmethod
    def deliver(self, message: Message) -> None:
        """Put a captured message into the queue once more, as a redelivery does."""

    @abstractmethod
    def close(self) -> None:
        """Remove what this broker was given."""


@dataclass
class RedisBroker(Broker):
    """Celery's Redis transport on a server of the site's own."""

    server: RedisServer
    visibility_timeout: float = 3600
    kind: str = "redis"

    def conf(self) -> dict[str, Any]:
        """Over the unix socket; a worker behind a proxy overrides `broker_url`."""
        return {
            "broker_url": self.server.celery_socket_url,
            "broker_transport_options": {"visibility_timeout": self.visibility_timeout},
        }

    def waiting(self) -> int:
        """Length of the list; what workers hold lies in `unacked`."""
        with self.server.client() as client:
            return int(client.llen("celery"))

    def load(self) -> int:
        """With the messages that workers hold unacknowledged."""
        with self.server.client() as client:
            return int(client.llen("celery")) + int(client.hlen("unacked"))

    def capture(self, task_id: str) -> Message:
        """From the queue, or from what workers hold unacknowledged."""
        with self.server.client() as client:
            held = [json.loads(each)[0] for each in client.hvals("unacked")]
            lying = [json.loads(each) for each in client.lrange("celery", 0, -1)]
        for message in held + lying:
            if message["headers"]["id"] == task_id:
                return dict(message)
        raise LookupError(task_id)

    def deliver(self, message: Message) -> None:
        """With the redelivered mark, as kombu's restore sets it."""
        copy = json.loads(json.dumps(message))
        copy["properties"]["delivery_info"]["redelivered"] = True
        with self.server.client() as client:
            client.rpush("celery", json.dumps(copy))

    def close(self) -> None:
        """Nothing: the server belongs to the site."""


@dataclass
class RabbitBroker(Broker):
    """A queue with a name of its own on the machine's RabbitMQ."""

    url: str
    queue_type: str = "classic"
    kind: str = "rabbitmq"
    name: str = field(default_factory=lambda: f"og-{uuid.uuid4().hex[:12]}")

    def conf(self) -> dict[str, Any]:
        """`queue` is no setting of Celery's: `tests.harness.app` declares it."""
        arguments = {"x-queue-type": self.queue_type}
        return {
            "broker_url": self.url,
            "task_default_queue": self.name,
            "queue": {"name": self.name, "arguments": arguments},
        }

    def waiting(self) -> int:
        """As the server counts messages that are ready."""
        with connect(self.url) as connection:
            declared = connection.default_channel.queue_declare(self.name, passive=True)
            return int(declared.message_count)

    def capture(self, task_id: str) -> Message:
        """Only while no worker consumes the queue: takes the message and puts it back."""
        with connect(self.url) as connection:
            take = partial(connection.default_channel.basic_get, self.name, no_ack=True)
            taken = eventually(take, "the queue gave its message", timeout=10)
            assert taken.headers["id"] == task_id
            message = {"body": taken.body, "properties": dict(taken.properties)}
            message |= {key: taken.properties[f"content_{key[8:]}"] for key in CONTENT}
        self.deliver(message)
        return message

    def deliver(self, message: Message) -> None:
        """Through the default exchange; the redelivered mark can't be forged on AMQP."""
        properties = {k: v for k, v in message["properties"].items() if k in KEPT}
        with connect(self.url) as connection:
            connection.Producer().publish(
                message["body"],
                exchange="",
                routing_key=self.name,
                headers=message["properties"]["application_headers"],
                content_type=message["content_type"],
                content_encoding=message["content_encoding"],
                **properties,
            )

    def close(self) -> None:
        """Delete the queue and the exchange that Celery names after it."""
        with connect(self.url) as connection:
            channel = connection.default_channel
            channel.queue_delete(self.name)
            channel.exchange_delete(self.name)


CONTENT: Final = ("content_type", "content_encoding")
KEPT: Final = ("correlation_id", "reply_to", "delivery_mode", "priority")


class VirtualHost:
    """A RabbitMQ vhost of our own, so that delayed exchanges and the like go with it."""

    def __init__(self) -> None:
        self.name = f"og-{uuid.uuid4().hex[:8]}"
        self.made = control("add_vhost", self.name)
        if self.made:
            control("set_permissions", "-p", self.name, "guest", ".*", ".*", ".*")

    @property
    def url(self) -> str:
        """The shared `/` where we may not make one."""
        return f"{RABBITMQ}/{self.name if self.made else '/'}"

    def close(self) -> None:
        """Delete it with all that is in it."""
        if self.made:
            control("delete_vhost", self.name)


def control(*words: str) -> bool:
    """Run rabbitmqctl; False where it is missing, refuses or hangs."""
    try:
        done = subprocess.run(["rabbitmqctl", *words], capture_output=True, timeout=30)  # noqa: PLW1510
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def rabbitmq_answers() -> bool:
    """Whether there is a RabbitMQ on this machine."""
    try:
        with connect(f"{RABBITMQ}//", connect_timeout=3) as connection:
            connection.connect()
    except (OSError, OperationalError):
        return False
    return True
