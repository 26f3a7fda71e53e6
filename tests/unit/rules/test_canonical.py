"""Canonical text: equal values one text, different values two, serializers no matter."""

from __future__ import annotations

import enum
import io
import json
import math
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal, localcontext
from itertools import combinations
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.serialization import dumps, loads
from pydantic import BaseModel

from onceguard.rules.canonical import DEEPEST, NoCanonicalText, canonical

ACCEPT = [
    "application/json",
    "application/x-python-serialize",
    "application/x-yaml",
    "application/x-msgpack",
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=True)
    | TEXT
)
ENVELOPED = (
    st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times(timezones=st.none() | st.just(timezone(timedelta(hours=-3))))
    | st.uuids()
    | st.decimals()
    | st.binary()
)
PICKLED = st.timedeltas() | st.frozensets(st.integers() | TEXT)
JSON_KEYS = TEXT | st.integers() | st.floats() | st.booleans() | st.none()


def nested(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> Any:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner)
        ),
        max_leaves=12,
    )


def sent(value: object, serializer: str) -> object:
    content_type, encoding, body = dumps(value, serializer)  # type: ignore[no-untyped-call]
    return loads(body, content_type, encoding, accept=ACCEPT)  # type: ignore[no-untyped-call]


@given(nested(PLAIN | ENVELOPED, JSON_KEYS))
def test_text_is_the_same_after_json(value: object) -> None:
    """
    The worker sees what JSON made of the arguments and must find the same key.

    It computes the key itself when the message was sent by name from a
    process that does not have the task.
    """
    assert canonical(sent(value, "json")) == canonical(value)


@given(nested(PLAIN | ENVELOPED | PICKLED, JSON_KEYS | st.dates() | st.uuids()))
def test_text_is_the_same_after_pickle(value: object) -> None:
    """Pickle keeps types that JSON turns into others; keys may not tell them apart."""
    assert canonical(sent(value, "pickle")) == canonical(value)


@given(nested(PLAIN | st.binary(), TEXT))
def test_text_is_the_same_after_msgpack(value: object) -> None:
    """Celery's users may choose msgpack for smaller messages."""
    pytest.importorskip("msgpack")
    assert canonical(sent(value, "msgpack")) == canonical(value)


@given(nested(PLAIN | st.dates() | st.binary(), st.integers() | TEXT))
def test_text_is_the_same_after_yaml(value: object) -> None:
    """YAML keeps dates and numbers in keys without an envelope."""
    pytest.importorskip("yaml")
    assert canonical(sent(value, "yaml")) == canonical(value)


@given(nested(PLAIN, JSON_KEYS), nested(PLAIN, JSON_KEYS))
def test_two_values_share_a_text_only_if_json_makes_them_one(one: Any, other: Any) -> None:
    """A text that two values share would keep one of two different calls from running."""
    assert (canonical(one) == canonical(other)) == (as_json(one) == as_json(other))


def as_json(value: Any) -> str:
    read = json.loads(json.dumps(value), parse_float=lambda text: float(text) + 0.0)
    return json.dumps(read, sort_keys=True)


class Colour(enum.Enum):
    """Neither text nor number."""

    RED = "red"


class Text(str):
    """A text with a class of its own."""

    __slots__ = ()


class Model(BaseModel):
    """A pydantic model as tasks take them."""

    id: int
    day: date


UTC_NOON = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
EAST = timezone(timedelta(hours=2))
SAME = [
    ([1, 2], (1, 2)),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({1: "x"}, {"1": "x"}),
    ({None: "x"}, {"null": "x"}),
    (0.0, -0.0),
    (Text("x"), "x"),
    (Colour.RED, "red"),
    (UTC_NOON, datetime(2024, 1, 1, 14, tzinfo=EAST)),
    (Decimal("1.10"), Decimal("1.1")),
    (Decimal("1E+2"), Decimal(100)),
    ({1, 2}, frozenset({2, 1})),
    (b"ab", bytearray(b"ab")),
    (Model(id=1, day=date(2024, 1, 2)), {"id": 1, "day": "2024-01-02"}),
]
DIFFERENT = [
    *(None, "null", "None", 0, 1, "1", True, "true", 1.0, "1.0", False, "", "[]"),
    *([], {}, set(), [1], ["1"], [[1]], {"1": 1}, {"1": "1"}, {1}, b"", b"1"),
    *(math.nan, "nan", math.inf, -math.inf, Decimal(1), Decimal("1.1"), 1.1, Decimal("nan")),
    *(UTC_NOON, UTC_NOON.replace(tzinfo=None), UTC_NOON.isoformat(), UTC_NOON.date()),
    *("2024-01-01", time(12), time(12, tzinfo=EAST), timedelta(1), timedelta(microseconds=1)),
    *(UUID(int=1), str(UUID(int=1)), "uuid:00000000-0000-0000-0000-000000000001"),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=repr)
def test_equal_values_have_one_text(one: object, other: object) -> None:
    """Two spellings of one value are one piece of work, so one of two calls is refused."""
    assert canonical(one) == canonical(other)


def test_different_values_have_different_texts() -> None:
    """`1`, `"1"`, `True` and `1.0` are four calls, though Python finds some of them equal."""
    shared = [
        (one, other)
        for one, other in combinations(DIFFERENT, 2)
        if canonical(one) == canonical(other)
    ]
    assert shared == []


def test_decimal_text_ignores_the_context() -> None:
    """A thread with a small precision would otherwise merge two amounts into one."""
    with localcontext() as context:
        context.prec = 2
        context.capitals = 0
        text = canonical(Decimal("1234.5678"))
    assert text == "decimal:1234.5678"


@given(st.decimals(allow_nan=False), st.decimals(allow_nan=False))
def test_decimals_share_a_text_only_if_they_are_equal(one: Decimal, other: Decimal) -> None:
    """Trailing zeros depend on where an amount came from, a database or a form."""
    assert (canonical(one) == canonical(other)) == (one == other)


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_decimal_text_is_the_number(value: Decimal) -> None:
    """A misplaced point would make 1.1 and 11 one call."""
    assert Decimal(canonical(value).removeprefix("decimal:")) == value


@dataclass
class Account:
    """Stands for a row of a database."""

    id: int


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), "object"),
        (io.StringIO(), "_io.StringIO"),
        ([{"a": (1, {"b": Ellipsis})}], "ellipsis"),
        ({object()}, "object"),
        ({"a": 1}.items(), "dict_items"),
        (range(3), "range"),
        (1j, "complex"),
        (int, "type"),
        (Model, "pydantic._internal._model_construction.ModelMetaclass"),
        (Account(1), f"{Account.__module__}.Account"),
        (len, "builtin_function_or_method"),
        (iter([1]), "list_iterator"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_text_is_refused_by_its_type(value: object, kind: str) -> None:
    """A repr with an address in it would make every call a different one, silently."""
    with pytest.raises(NoCanonicalText) as caught:
        canonical(value)
    assert caught.value.value_type == kind


def list_in_itself() -> object:
    endless: list[object] = []
    endless.append(endless)
    return endless


def dict_in_itself() -> object:
    endless: dict[str, object] = {}
    endless["self"] = [endless]
    return endless


class Endless:
    """Offers itself as its own plain form."""

    def __json__(self) -> Endless:
        """Kombu's hook."""
        return self


@pytest.mark.parametrize("endless", [list_in_itself(), dict_in_itself(), Endless()], ids=type)
def test_what_contains_itself_is_refused(endless: object) -> None:
    """A RecursionError at publish says neither which argument nor what to do."""
    with pytest.raises(NoCanonicalText) as caught:
        canonical(endless)
    assert "itself" in caught.value.reason or "never ends" in caught.value.reason


def test_nesting_is_allowed_as_deep_as_promised() -> None:
    """The limit is there for endless values, not for deep ones."""
    value: object = 1
    for _ in range(DEEPEST):
        value = [value]
    assert canonical(value) == "[" * DEEPEST + "1" + "]" * DEEPEST


class Broken:
    """Fails when it is sent."""

    def __json__(self) -> str:
        """Kombu's hook."""
        raise LookupError("no session")


def test_a_value_that_fails_to_be_sent_says_so() -> None:
    """The model's own error is the cause; the key's error says whose it is."""
    with pytest.raises(NoCanonicalText, match=r"LookupError\('no session'\)"):
        canonical(Broken())


class Day(date):
    """A date that says itself how it is sent."""

    def __json__(self) -> str:
        """Kombu's hook."""
        return "a day"


def test_the_json_hook_comes_before_a_date_as_in_kombu() -> None:
    """The worker sees what the hook made, so the publisher's key must be made of it too."""
    assert canonical(Day(2024, 1, 1)) == canonical(sent(Day(2024, 1, 1), "json"))
