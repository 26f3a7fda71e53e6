"""Identities: of one publish, of what follows from it, and of a key's partition."""

from __future__ import annotations

import os
import re
import zlib
from base64 import urlsafe_b64encode
from urllib.parse import quote

PARTITIONS = 16

_RANDOM_BYTES = 12  # 16 characters of base64 without padding
_RETRY = re.compile(r"\.r\d+\Z")
_REPLACEMENT = re.compile(r"\.n\d+\Z")


def new_message_id() -> str:
    """
    Make the identity of a publish: 16 URL-safe characters, 96 random bits.

    It never starts with ``-``, which stands for "none" in a record.
    """
    text = urlsafe_b64encode(os.urandom(_RANDOM_BYTES)).decode("ascii")
    return "0" + text[1:] if text[0] == "-" else text


def retry_message_id(parent: str, retries: int) -> str:
    """
    Name the message that retry number *retries* of *parent* publishes.

    It follows from the parent, so a parent that runs a second time publishes
    the same message again and not a second one.
    """
    return f"{_RETRY.sub('', parent)}.r{retries}"


def replacement_message_id(parent: str, nesting: int) -> str:
    """Name the message that `Task.replace` publishes in *parent*, as for a retry."""
    return f"{_REPLACEMENT.sub('', parent)}.n{nesting}"


def headerless_message_id(task_id: str, retries: int, nesting: int) -> str:
    """
    Name a message that came without our header.

    Task ids are the user's to choose; spaces and the like are percent-encoded,
    for a record's fields are parted by spaces.
    """
    return f"{quote(task_id, safe='')}.{retries}.{nesting}"


def partition(key: str) -> int:
    """Say which of the `PARTITIONS` hash tags holds everything about *key*."""
    return zlib.crc32(key.encode()) % PARTITIONS
