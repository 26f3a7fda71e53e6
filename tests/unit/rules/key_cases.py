"""
Print the keys of recorded calls, as JSON.

A program of its own, without third-party imports, so that it runs under any
Python and hash seed: ``python tests/unit/rules/key_cases.py``. Keys are stored
in Redis and compared between releases, so a key that changes here frees no
lock of the old release and lets two runs of one call overlap during an update.
"""

from __future__ import annotations

import enum
import inspect
import json
import math
import sys
from collections import OrderedDict, defaultdict, namedtuple
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from onceguard.rules.keys import KeyMaker
from onceguard.rules.options import Once

Pair = namedtuple("Pair", "left right")  # noqa: PYI024 - the plainest of its kind


class Colour(enum.Enum):
    """Neither text nor number."""

    RED = 1


class Size(str, enum.Enum):
    """A text."""

    BIG = "big"


class Level(enum.IntEnum):
    """A number."""

    HIGH = 3


class Sent:
    """Knows how to be sent."""

    def __json__(self) -> dict[str, int]:
        """Kombu's hook."""
        return {"id": 7}


class Dumped:
    """Stands for a pydantic model."""

    model_fields = ("id",)

    def model_dump(self, mode: str) -> dict[str, str]:
        """Pydantic's method."""
        return {"id": mode}


ZONE = timezone(timedelta(hours=5, minutes=30))
VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "negative": -12,
    "big int": 10**30,
    "huge int": 7**1000,
    "float one": 1.0,
    "float tenth": 0.1,
    "float third": 1 / 3,
    "float large": 1e22,
    "float small": 5e-324,
    "negative zero": -0.0,
    "nan": math.nan,
    "infinity": math.inf,
    "negative infinity": -math.inf,
    "text one": "1",
    "text empty": "",
    "text true": "true",
    "text quotes": 'a"b\\c',
    "text space": "a b",
    "text newline": "a\nb",
    "text delete": "\x7f",
    "text accents": "Zürich",
    "text emoji": "🦄",
    "text surrogate": "\ud800",
    "list": [1, "a", None],
    "list empty": [],
    "tuple": (1, "a", None),
    "tuple pair": Pair(1, 2),
    "nested": [[1, [2]], {"a": [(3,)]}],
    "dict": {"b": 1, "a": 2},
    "dict empty": {},
    "dict odd keys": {7: 1, True: 2, None: 3, 1.5: 4},
    "dict float keys": {math.nan: 1, math.inf: 2, -0.0: 3},
    "dict text and number": {"1": "text", 1: "number"},
    "dict enum keys": {Size.BIG: 1, Level.HIGH: 2},
    "dict date keys": {date(2024, 1, 2): 1, (1, 2): 2},
    "dict ordered": OrderedDict(b=1, a=2),
    "dict default": defaultdict(int, a=1),
    "set": {"b", "a", "c"},
    "set mixed": frozenset({1, "1", None, (2, 3)}),
    "set empty": set(),
    "bytes": b"\x00\xffabc",
    "bytes empty": b"",
    "bytearray": bytearray(b"ab"),
    "datetime": datetime(2024, 2, 29, 12, 30),  # noqa: DTZ001 - naive on purpose
    "datetime us": datetime(2024, 2, 29, 12, 30, 0, 5),  # noqa: DTZ001
    "datetime utc": datetime(2024, 2, 29, 12, 30, tzinfo=timezone.utc),
    "datetime zone": datetime(2024, 2, 29, 18, 0, tzinfo=ZONE),
    "datetime first": datetime(1, 1, 1, tzinfo=ZONE),
    "date": date(2024, 2, 29),
    "time": time(12, 30),
    "time zone": time(12, 30, 1, 2, tzinfo=ZONE),
    "timedelta": timedelta(days=1, microseconds=-1),
    "uuid": UUID("12345678-1234-5678-1234-567812345678"),
    "decimal": Decimal("1.10"),
    "decimal integer": Decimal(100),
    "decimal negative": Decimal("-0.050"),
    "decimal zero": Decimal("-0.00"),
    "decimal large": Decimal("1e400"),
    "decimal nan": Decimal("nan"),
    "decimal infinity": Decimal("-inf"),
    "enum": Colour.RED,
    "enum text": Size.BIG,
    "enum number": Level.HIGH,
    "json hook": Sent(),
    "model": Dumped(),
    "long": "x" * 200,
}


def plain(user_id: int, full: bool = False) -> None:
    """Stand for the usual task."""


def rich(a: int, /, b: int = 2, *rest: int, c: int = 3, **extra: int) -> None:
    """Take arguments in every way."""


def anything(x: Any) -> None:
    """Take one value."""


Call = tuple[Any, dict[str, Any], tuple[Any, ...], dict[str, Any]]
CALLS: dict[str, Call] = {
    "positional": (plain, {}, (7,), {}),
    "keyword": (plain, {}, (), {"full": True, "user_id": 7}),
    "keys": (plain, {"keys": ["user_id"]}, (7, True), {}),
    "keys order": (plain, {"keys": ["full", "user_id"]}, (7, True), {}),
    "rich": (rich, {}, (1,), {}),
    "rich all": (rich, {}, (1, 2, 3, 4), {"c": 5, "z": 6, "d": 7}),
    "rich odd names": (rich, {}, (1,), {"x=1,y": 2, "a": 3}),
    "rich keys": (rich, {"keys": ["a", "extra", "d"]}, (1,), {"d": 4, "e": 5}),
    "template": (plain, {"key": "user:{user_id}/{full}"}, (7,), {}),
    "template text": (plain, {"key": "user:{user_id}"}, ("ann",), {}),
    "template braces": (plain, {"key": "{{user}}:{user_id}"}, (7,), {}),
    "template constant": (plain, {"key": "rebuild"}, (7,), {}),
    "template odd": (plain, {"key": "user:{user_id}"}, ("ann lee",), {}),
    "function": (plain, {"key": lambda user_id: f"user:{user_id}"}, (7,), {}),
    "function odd": (plain, {"key": lambda **call: f"user {call['full']}"}, (7,), {}),
}


def keys() -> dict[str, str]:
    """Return the key of each recorded call, by the call's name."""
    found = {}
    value_key = KeyMaker("proj.task", inspect.signature(anything), Once())
    for name, value in VALUES.items():
        found[f"value: {name}"] = value_key((value,))
    for name, (function, options, args, kwargs) in CALLS.items():
        make = KeyMaker("proj.task", inspect.signature(function), Once(**options))
        found[f"call: {name}"] = make(args, kwargs)
    odd = KeyMaker("proj.tâsk " + "x" * 200, inspect.signature(plain), Once())
    found["call: odd task name"] = odd((7,))
    return found


if __name__ == "__main__":
    json.dump(keys(), sys.stdout, indent=2)
    sys.stdout.write("\n")
