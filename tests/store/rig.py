"""The store under test, with the durations filled in that a test does not care about."""

# ruff: noqa: D102 - contract.py says what each transition does

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onceguard.rules.messages import partition
from onceguard.store.contract import Held, Lease, Message, Renewed, Started, Successor
from onceguard.store.names import Names
from onceguard.store.opening import open_store
from onceguard.store.redis import RedisStore
from tests.harness.redis_server import RedisServer

if TYPE_CHECKING:
    import redis

PREFIX = "once"
KEY = "proj.tasks.sync_user(user_id=7)"
LEASE_TTL = 30.0
UNIQUE_FOR = 600.0
COMPLETED_FOR = 3600.0


def call(
    message_id: str, *, key: str = KEY, task_id: str = "", own_lease: bool = False
) -> Message:
    """A published call; its task's id follows from the message's unless given."""
    return Message(
        key=key,
        message_id=message_id,
        task_id=task_id or f"task-of-{message_id}",
        own_lease=own_lease,
        where="host:1",
    )


@dataclass
class Rig:
    """A store, and a connection past it to see what it left in Redis."""

    store: RedisStore
    raw: "redis.Redis"

    def claim(self, message: Message, *, unique_for: float = UNIQUE_FOR) -> Held | None:
        return self.store.claim(message, unique_for=unique_for)

    def start(
        self,
        message: Message,
        nonce: str,
        *,
        parent_id: str | None = None,
        max_deliveries: int = 5,
        lease_ttl: float = LEASE_TTL,
    ) -> Started:
        return self.store.start(
            message,
            nonce=nonce,
            parent_id=parent_id,
            max_deliveries=max_deliveries,
            lease_ttl=lease_ttl,
            completed_for=COMPLETED_FOR,
        )

    def renew(
        self, message: Message, nonce: str, seen: str, *, lease_ttl: float = LEASE_TTL
    ) -> tuple[Renewed, str]:
        return self.store.renew([self.lease(message, nonce, seen, lease_ttl=lease_ttl)])[0]

    def finish(self, message: Message, nonce: str, *, retry: str | None = None) -> bool:
        successor = Successor(message_id=retry, unique_for=UNIQUE_FOR) if retry else None
        return self.store.finish(
            message, nonce=nonce, completed_for=COMPLETED_FOR, successor=successor
        )

    def abandon(self, message: Message, nonce: str, *, unique_for: float = UNIQUE_FOR) -> bool:
        return self.store.abandon(message, nonce=nonce, unique_for=unique_for)

    def shorten(self, message: Message, nonce: str, *, lease_ttl: float = 2.0) -> bool:
        return self.store.shorten(
            message, nonce=nonce, lease_ttl=lease_ttl, completed_for=COMPLETED_FOR
        )

    def put_off(
        self, message: Message, generation: int, *, unique_for: float = UNIQUE_FOR
    ) -> int:
        return self.store.put_off(
            message,
            generation=generation,
            completed_for=COMPLETED_FOR,
            unique_for=unique_for,
        )

    def drop(self, message: Message) -> bool:
        return self.store.drop(message, completed_for=COMPLETED_FOR)

    @staticmethod
    def lease(
        message: Message, nonce: str, seen: str, *, lease_ttl: float = LEASE_TTL
    ) -> Lease:
        return Lease(
            message=message,
            nonce=nonce,
            lease_ttl=lease_ttl,
            completed_for=COMPLETED_FOR,
            seen=seen,
        )

    def now(self) -> float:
        """The server's clock, in unix seconds."""
        seconds, microseconds = self.raw.time()
        return seconds + microseconds / 1_000_000

    def command(self, *words: str | int) -> Any:
        """Send a command that redis-py has no method for."""
        return self.raw.execute_command(*words)  # type: ignore[no-untyped-call]

    def run(self, message: Message, nonce: str) -> str:
        """Start, which must succeed, and return the lease's record."""
        return record_of(self.start(message, nonce))

    def end_by_itself(self, message: Message) -> None:
        """Do what Redis does when a lease or claim ends: its key goes, all else stays."""
        assert self.raw.delete(self.lease_name(message)), "there was nothing to end"

    def names(self, message: Message) -> Names:
        """The Redis keys of the partition that the message's key belongs to."""
        return self.store._names[partition(message.key)]

    def lease_name(self, message: Message) -> str:
        """The Redis key where the message's lease stands."""
        return self.names(message).lease(message)

    def held(self, message: Message) -> str:
        """Kind of hold and message id on the key's lock: ``"claim m1"``, or nothing."""
        record = str(self.raw.get(self.names(message).lock(message)) or "")
        return " ".join(record.split(" ")[:2])

    def record(self, message: Message) -> str:
        """What is remembered of a message: state, starts, generation, last nonce."""
        record = str(self.raw.get(self.names(message).record(message.message_id)) or "")
        return " ".join(record.split(" ")[:4])

    def records(self, messages: list[Message]) -> list[str]:
        """The records of many messages, in one round trip."""
        keys = [self.names(message).record(message.message_id) for message in messages]
        return [str(record or "") for record in self.raw.mget(keys)] if keys else []

    def memory_of(self, message: Message) -> float:
        """Seconds for which a message is still remembered; -0.002 if it is not."""
        life = self.raw.pttl(self.names(message).record(message.message_id))
        return float(life) / 1000

    def listed(self, message: Message) -> set[str]:
        """Everything the index of the key's partition lists."""
        return {str(name) for name in self.raw.zrange(self.names(message).index, 0, -1)}

    def without_ttl(self) -> set[str]:
        """Names of all keys in Redis that would stay for ever."""
        keys = [str(key) for key in self.raw.scan_iter(count=1000)]
        with self.raw.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.pttl(key)
            lives = pipe.execute()
        return {key for key, life in zip(keys, lives, strict=True) if life == -1}


def record_of(started: Started) -> str:
    """The record of the lease that a start acquired."""
    assert started.answer == "acquired", started
    assert started.held is not None
    return started.held.holder.record()


def token_of(record: str) -> int:
    """The fencing token in a lease's record."""
    return int(record.split(" ")[4])


def open_rig(server: RedisServer, *, url: str = "", socket_timeout: float = 5.0) -> Rig:
    """A rig on a server; it ends with the test's process."""
    store = open_store(url or server.socket_url, prefix=PREFIX, socket_timeout=socket_timeout)
    return Rig(store, server.client())


def open_rig_at(rig: Rig, *, prefix: str = PREFIX) -> Rig:
    """A rig with a store of its own on another one's server."""
    path = rig.raw.connection_pool.connection_kwargs["path"]
    store = open_store(f"unix://{path}", prefix=prefix, socket_timeout=5.0)
    return Rig(store, rig.raw)
