"""Which calls belong to a canvas, and which continue the task that publishes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_MEMBER_OPTIONS = ("chord", "group_id", "chain", "link", "root_id", "parent_id")


def is_member(options: Mapping[str, Any]) -> bool:
    """
    Whether a call is a member of a chain, group or chord, a link or a callback.

    Celery has frozen the ids of a canvas before it publishes. Refusing a member
    would leave the rest waiting for ever, or turn the success of the parent that
    publishes it into a failure; so a member is always published, and a duplicate
    among them is decided at its start.
    """
    return any(options.get(name) for name in _MEMBER_OPTIONS)
