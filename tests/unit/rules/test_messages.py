"""Identities of messages."""

from __future__ import annotations

import re
from collections import Counter

from onceguard.rules.messages import (
    PARTITIONS,
    headerless_message_id,
    new_message_id,
    partition,
    replacement_message_id,
    retry_message_id,
)


def test_message_ids_are_fresh_and_fit_into_a_record() -> None:
    """Two publishes with one id would count as one message, and one would be lost."""
    made = [new_message_id() for _ in range(20_000)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"[0-9A-Za-z_][0-9A-Za-z_-]{15}", one) for one in made)


def test_a_retry_of_a_parent_is_one_message_however_often_it_is_published() -> None:
    """A parent that runs a second time publishes its retry again, not another one."""
    first = retry_message_id("abc", 1)
    assert first == retry_message_id("abc", 1) == "abc.r1"
    assert retry_message_id(first, 2) == "abc.r2"


def test_ids_do_not_grow_with_retries() -> None:
    """A task may retry for days."""
    name = "abc"
    for retries in range(1, 1001):
        name = retry_message_id(name, retries)
    assert name == "abc.r1000"


def test_replacing_and_retrying_give_ids_of_their_own() -> None:
    """A replacement is another message than the run that published it, retried or not."""
    replaced = replacement_message_id("abc.r2", 1)
    made = [
        "abc",
        "abc.r2",
        replaced,
        retry_message_id(replaced, 1),
        retry_message_id(replaced, 2),
        replacement_message_id(replaced, 2),
        replacement_message_id("abc", 1),
    ]
    assert len(set(made)) == len(made)


def test_a_message_without_header_is_known_by_task_retry_and_nesting() -> None:
    """A redelivery has the same three; a retry or a replacement does not."""
    assert headerless_message_id("t1", 0, 0) == headerless_message_id("t1", 0, 0)
    made = {headerless_message_id("t1", *rest) for rest in ((0, 0), (1, 0), (0, 1))}
    assert len(made) == 3


def test_a_task_id_cannot_break_a_record_apart() -> None:
    """Users choose task ids, and a record's fields are parted by spaces."""
    odd = ["a b", "a%20b", "a\tb", "a\nb", "ä", "a/b"]
    made = [headerless_message_id(task_id, 0, 0) for task_id in odd]
    assert len(set(made)) == len(odd)
    assert all(re.fullmatch(r"[!-~]+", one) for one in made)


def test_partitions_never_change() -> None:
    """A key that moves to another partition leaves its lock behind."""
    assert partition("proj.sync(user_id=7)") == 15
    assert partition("") == 0


def test_keys_spread_over_all_partitions() -> None:
    """A Cluster carries the load only if no partition has most of it."""
    used = Counter(partition(f"proj.sync(user_id={n})") for n in range(16_000))
    assert len(used) == PARTITIONS
    assert max(used.values()) < 1500
