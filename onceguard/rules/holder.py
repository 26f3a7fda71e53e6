"""Who has a key: the record that the store keeps, as an object."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

_FIELDS = {"claim": 2, "lease": 6}  # between the state and the task id


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
        where: Host and process that run it; ``"-"`` for a claim.
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
        Read a record: fields between single spaces, the task id last.

        ``claim <message id> <since, ms> <task id>`` or
        ``lease <message id> <nonce> <attempt> <token> <since, µs> <where> <task id>``.
        A task id may hold spaces, for users choose it; the other fields can't.

        Raises:
            ValueError: Someone else wrote this record.
        """
        state, _, rest = record.partition(" ")
        fields = rest.split(" ", _FIELDS.get(state, 0))
        if state == "claim" and len(fields) == _FIELDS[state] + 1:
            message_id, since, task_id = fields
            return cls("claim", message_id, "-", 0, 0, int(since) / 1e3, "-", task_id)
        if state == "lease" and len(fields) == _FIELDS[state] + 1:
            message_id, nonce, attempt, token, since, where, task_id = fields
            begun = int(since) / 1e6
            return cls(
                "lease", message_id, nonce, int(attempt), int(token), begun, where, task_id
            )
        raise ValueError(f"{record[:200]!r} is not the record of a holder")

    def record(self) -> str:
        """Write the record that `parse` reads, as the store's scripts do."""
        if self.state == "claim":
            return f"claim {self.message_id} {round(self.since * 1e3)} {self.task_id}"
        run = f"{self.nonce} {self.attempt} {self.fencing_token} {round(self.since * 1e6)}"
        return f"lease {self.message_id} {run} {self.where} {self.task_id}"

    def __str__(self) -> str:
        """Say who holds the key, in words that complete 'the key is …'."""
        since = datetime.fromtimestamp(self.since, tz=timezone.utc).isoformat(
            sep=" ", timespec="seconds"
        )
        if self.state == "lease":
            place = f"on {self.where} since {since} (attempt {self.attempt})"
            return f"running as task {self.task_id} {place}"
        return f"queued as task {self.task_id} since {since}"
