"""What a store knows of a call, and of who holds its key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onceguard.rules.holder import Holder


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """
    One published call: what a claim and a lease belong to.

    Attributes:
        key: What must be unique; it holds no space.
        message_id: Identity of this publish.
        task_id: Celery's id of the task; a retry shares it with its parent.
        own_lease: The run guards only against further deliveries and retries of
            this very task (scope ``until_executing``), not against equal calls.
        where: Host and process that publishes or runs it, for people to read.
        waits: A tick that was sent to wait for the end of the call that runs.
    """

    key: str
    message_id: str
    task_id: str
    own_lease: bool
    where: str
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """Who holds a key, and how long it would without renewal."""

    holder: Holder
    time_left: float


@dataclass(frozen=True, slots=True)
class Listed:
    """A key that is held, among all that are."""

    key: str
    held: Held
