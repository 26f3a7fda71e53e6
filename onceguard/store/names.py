"""Names of the Redis keys, and the words in which scripts are asked and answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onceguard.rules.holder import Holder
from onceguard.store.message import Held

if TYPE_CHECKING:
    from onceguard.store.message import Message

SCHEMA = "once1"


def ms(seconds: float) -> int:
    """Give a duration or an instant as whole milliseconds, at least one."""
    return max(1, round(seconds * 1000))


class Names:
    """
    The Redis keys of one partition, which share a hash tag.

    A lock shares its slot with everything that its scripts touch, so that they
    are legal on a Cluster.
    """

    __slots__ = ("_head", "fence", "index", "probe")

    def __init__(self, prefix: str, number: int) -> None:
        self._head = f"{SCHEMA}:{{{prefix}:{number}}}:"
        self.index = f"{self._head}index"
        self.fence = f"{self._head}fence"
        self.probe = f"{self._head}probe"

    def lock(self, message: Message) -> str:
        """Name where claims of the message's key stand."""
        return f"{self._head}lock:{message.key}"

    def lease(self, message: Message) -> str:
        """Name where the lease of its run stands."""
        if message.own_lease:
            return f"{self._head}run:{message.task_id}"
        return f"{self._head}lock:{message.key}"

    def record(self, message_id: str) -> str:
        """Name what is known of a message."""
        return f"{self._head}msg:{message_id}"

    def next(self, message: Message) -> str:
        """Name the claim of the tick that waits for the end of a run."""
        return f"{self._head}next:{message.key}"

    def waits(self, message: Message, otherwise: str) -> str:
        """Name where a waiting tick's claim stands, for a message that is none: *otherwise*."""
        return self.next(message) if message.waits else otherwise

    def tick(self, entry: str) -> str:
        """Name the state of a schedule entry."""
        return f"{self._head}tick:{entry}"

    def listed(self, name: str) -> str:
        """Name where that stands which the index lists by this name."""
        key, _, lease = name.partition(" ")
        return f"{self._head}{f'run:{lease}' if lease not in {'', 'lease'} else f'lock:{key}'}"

    def past(self, message: Message) -> str:
        """Name the token of whoever followed a lease that ended by itself."""
        return f"{self._head}past:{message.task_id if message.own_lease else message.key}"

    def of_end(self, message: Message) -> tuple[str, str, str, str]:
        """Name what every end of a run touches, in the order of the scripts."""
        record = self.record(message.message_id)
        return self.lock(message), self.lease(message), record, self.index


def listed(message: Message) -> str:
    """Name a lease in the index. A claim is listed by its key, which holds no space."""
    return f"{message.key} {message.task_id if message.own_lease else 'lease'}"


def text(raw: bytes | str) -> str:
    """Decode a reply."""
    return raw.decode() if isinstance(raw, bytes) else raw


def held(raw: bytes | str, milliseconds: int) -> Held:
    """Read a holder's record and the time it has left."""
    return Held(Holder.parse(text(raw)), max(0, int(milliseconds)) / 1000)
