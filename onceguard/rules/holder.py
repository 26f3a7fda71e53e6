"""Who has a key: the record that the store keeps, as an object."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal, cast

_FIELDS = 8
_STATES = ("claim", "lease")


@dataclass(frozen=True, slots=True)
class Holder:
    """
    The call that has a key: queued (a claim) or running (a lease).

    Attributes:
        state: ``"claim"`` for a published call that has not started,
            ``"lease"`` for a running attempt.
        message_id: Identity of the publish.
        nonce: Identity of the delivery that runs; ``"-"`` for a claim.
        attempt: Starts of this message so far; 0 for a claim.
        fencing_token: Grows with each new lease of the key; 0 for a claim.
        since: Begin of the claim or lease, unix seconds of the Redis server.
        where: The worker that runs it or the process that published it;
            ``"-"`` if unknown.
        task_id: Celery's task id.
    """

    state: Literal["claim", "lease"]
    message_id: str
    nonce: str
    attempt: int
    fencing_token: int
    since: float
    where: str
    task_id: str

    @classmethod
    def parse(cls, record: str) -> Holder:
        """
        Read a record: eight fields between single spaces, the task id last.

        A task id may hold spaces, for users choose it; the other fields can't.

        Raises:
            ValueError: Someone else wrote this record.
        """
        fields = record.split(" ", _FIELDS - 1)
        if len(fields) != _FIELDS or fields[0] not in _STATES:
            raise ValueError(f"{record[:200]!r} is not the record of a holder")
        state, message_id, nonce, attempt, token, since_us, where, task_id = fields
        return cls(
            state=cast("Literal['claim', 'lease']", state),
            message_id=message_id,
            nonce=nonce,
            attempt=int(attempt),
            fencing_token=int(token),
            since=int(since_us) / 1_000_000,
            where=where,
            task_id=task_id,
        )

    def record(self) -> str:
        """Write the record that `parse` reads, as the store's scripts do."""
        since_us = round(self.since * 1_000_000)
        head = f"{self.state} {self.message_id} {self.nonce} {self.attempt}"
        return f"{head} {self.fencing_token} {since_us} {self.where} {self.task_id}"

    def __str__(self) -> str:
        """Say who holds the key, in words that complete 'the key is …'."""
        since = datetime.fromtimestamp(self.since, tz=timezone.utc).isoformat(
            sep=" ", timespec="seconds"
        )
        if self.state == "lease":
            place = f"on {self.where} since {since} (attempt {self.attempt})"
            return f"running as task {self.task_id} {place}"
        publisher = "" if self.where == "-" else f" by {self.where}"
        return f"queued as task {self.task_id}{publisher} since {since}"
