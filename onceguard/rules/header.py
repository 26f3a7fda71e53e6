"""The one message header of ours: what travels with a call from publisher to worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "onceguard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """
    Identity of one publish.

    Attributes:
        message_id: Fresh for each publish, kept when a delivery is put off.
        key: What must be unique, as the publisher computed it.
        generation: How often the message was put off before this copy.
        parent_id: Message id of the run that published this retry of the same key.
        delay: Seconds for which this copy was put off. It bounds an ETA, which the
            clock of another host has made.
        overrides: Options given for this call alone.
        scheduled_at: When the tick was due that sent the call, unix seconds.
        start_by: When it is too late for its run to start, unix seconds.
        waits: It was sent to wait for the end of the call that runs.
        nonce: Which arrival at a worker this is; '' on the wire.
        content_type: How the arrived body is serialized; '' on the wire.
    """

    message_id: str
    key: str
    generation: int = 0
    parent_id: str | None = None
    delay: float = 0.0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    scheduled_at: float | None = None
    start_by: float | None = None
    waits: bool = False
    nonce: str = ""
    content_type: str = ""

    def dump(self) -> dict[str, Any]:
        """Give the header as every serializer and broker can carry it."""
        wire: dict[str, Any] = {"id": self.message_id, "key": self.key}
        if self.generation:
            wire["gen"] = self.generation
        if self.parent_id:
            wire["parent"] = self.parent_id
        if self.delay:
            wire["delay"] = self.delay
        if self.overrides:
            wire["options"] = dict(self.overrides)
        if self.scheduled_at is not None:
            wire["at"] = self.scheduled_at
        if self.start_by is not None:
            wire["by"] = self.start_by
        if self.waits:
            wire["waits"] = True
        if self.nonce:
            wire["nonce"] = self.nonce
            wire["type"] = self.content_type
        return wire


def switched_off(wire: object) -> bool:
    """Whether the publisher switched guarding off for this call."""
    return isinstance(wire, dict) and wire.get("off") is True


def load(wire: object) -> Header | None:
    """Read a header; None where it is missing or not one of ours."""
    if not isinstance(wire, dict):
        return None
    message_id, key, options = wire.get("id"), wire.get("key"), wire.get("options")
    if not (isinstance(message_id, str) and isinstance(key, str) and message_id and key):
        return None
    return Header(
        message_id=message_id,
        key=key,
        generation=int(wire.get("gen") or 0),
        parent_id=wire.get("parent") or None,
        delay=float(wire.get("delay") or 0.0),
        overrides=options if isinstance(options, dict) else {},
        scheduled_at=_instant(wire.get("at")),
        start_by=_instant(wire.get("by")),
        waits=wire.get("waits") is True,
        nonce=wire.get("nonce") or "",
        content_type=wire.get("type") or "",
    )


def _instant(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
