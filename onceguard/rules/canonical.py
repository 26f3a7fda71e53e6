"""
One text for equal values, in every process and on both sides of a serializer.

JSON is what most messages travel in, so its view of values holds: a tuple is
a list, a subclass of str, int or float is its content, a dict's key 1 is
"1". On top of that, values that kombu's JSON carries in an envelope
(datetime, date, time, UUID, Decimal, bytes) have texts of their own, as do
those that only pickle and YAML carry (sets, timedelta, plain enums).
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from json.encoder import encode_basestring_ascii as quote
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SCALARS", "NoCanonicalText", "canonical", "quote"]

DEEPEST = 64
"""Containers in containers; what is deeper is likely to contain itself."""

_LONGEST_DECIMAL_INT = 2048  # bits; Python refuses decimal text somewhere above
_LONGEST_SHIFT = 20


class NoCanonicalText(Exception):  # noqa: N818 - not an error: the caller makes one of it
    """
    A value has none.

    Attributes:
        value_type: Qualified name of its type.
        reason: Why, or "" for the usual reason: the type has none.
    """

    def __init__(self, value: object, reason: str = "") -> None:
        self.value_type = _type_name(value)
        self.reason = reason
        super().__init__(self.value_type, reason)


def canonical(value: object) -> str:
    """
    Return the text of *value*.

    Raises:
        NoCanonicalText: It has none, or something in it has none.
    """
    return _text(value, 0)


def _text(value: object, depth: int) -> str:
    if scalar := SCALARS.get(type(value)):
        return scalar(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_texts(value, depth))}]"
    if isinstance(value, dict):
        return _dict(value, depth)
    for kind, text in _NATIVE:
        if isinstance(value, kind):
            return text(value)
    return _text_of_object(value, depth)


def _texts(values: Any, depth: int) -> list[str]:
    if depth >= DEEPEST:
        raise NoCanonicalText(
            values, f"it is nested more than {DEEPEST} levels deep or contains itself"
        )
    return [_text(value, depth + 1) for value in values]


def _dict(values: dict[Any, Any], depth: int) -> str:
    texts = _texts(values.values(), depth)
    # Of two keys with one text the later wins, as when JSON is read.
    named = dict(zip([_name(key, depth) for key in values], texts, strict=True))
    return "{" + ",".join([f"{name}:{named[name]}" for name in sorted(named)]) + "}"


def _name(key: object, depth: int) -> str:
    """Turn a dict's key into what JSON makes of it, if it can be one in JSON."""
    if isinstance(key, str):
        return quote(key)
    if key is None or isinstance(key, bool):
        return f'"{SCALARS[type(key)](key)}"'
    if isinstance(key, int):
        return f'"{_int(key)}"'
    if isinstance(key, float):
        return f'"{_json_float(key)}"'
    return _text(key, depth + 1)


def _json_float(value: float) -> str:
    words = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    text = float.__repr__(value)
    return words.get(text, text)


def _text_of_object(value: object, depth: int) -> str:
    """Find the text of what JSON can't write by itself, asking in kombu's order."""
    if hasattr(type(value), "__json__"):
        return _reduced(value, "__json__", depth)
    for kind, text in _ENVELOPED:
        if isinstance(value, kind):
            return text(value)
    if isinstance(value, (set, frozenset)):
        return f"set[{','.join(sorted(_texts(value, depth)))}]"
    if isinstance(value, Enum):
        return _text(value.value, depth + 1)
    if hasattr(type(value), "model_dump") and hasattr(type(value), "model_fields"):
        return _reduced(value, "model_dump", depth, mode="json")
    raise NoCanonicalText(value)


def _reduced(value: object, method: str, depth: int, **arguments: str) -> str:
    """Take the plain form that the value itself offers, as kombu and Celery send it."""
    if depth >= DEEPEST:
        raise NoCanonicalText(value, f"its {method}() never ends in plain values")
    try:
        plain = getattr(value, method)(**arguments)
    except Exception as error:
        raise NoCanonicalText(value, f"its {method}() failed: {error!r}") from error
    return _text(plain, depth + 1)


def _int(value: int) -> str:
    if value.bit_length() > _LONGEST_DECIMAL_INT:
        return int.__format__(value, "#x")
    return int.__repr__(value)


def _float(value: float) -> str:
    # 0.0 and -0.0 are equal. Python writes the shortest text that reads back
    # as the same float, with a '.' or an 'e' in it, on every platform.
    return "0.0" if value == 0 else float.__repr__(value)


def _datetime(value: datetime) -> str:
    """Equal instants are one text, whatever their zones; without a zone it is another."""
    offset = value.utcoffset()
    if offset is None:
        return f"datetime:{datetime.isoformat(value)}"
    try:
        instant = datetime.replace(value, tzinfo=None, fold=0) - offset
    except OverflowError:  # within a day of the years 1 and 9999
        return f"datetime:{datetime.isoformat(value)}"
    return f"datetime:{datetime.isoformat(instant)}Z"


def _date(value: date) -> str:
    return f"date:{date.isoformat(value)}"


def _time(value: time) -> str:
    return f"time:{time.isoformat(value)}"


def _timedelta(value: timedelta) -> str:
    return f"timedelta:{value // timedelta(microseconds=1)}us"


def _uuid(value: UUID) -> str:
    return f"uuid:{value}"


def _decimal(value: Decimal) -> str:
    """Equal numbers are one text: 1.10 is 1.1, and no context rounds them."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return f"decimal:{str(value).lower()}"
    every = "".join(map(str, digits)).lstrip("0")
    text = every.rstrip("0")
    if not text:
        return "decimal:0"
    return f"decimal:{'-' * sign}{_point(text, exponent + len(every) - len(text))}"


def _point(digits: str, exponent: int) -> str:
    """Write digits x 10^exponent without a power where that is short."""
    if abs(exponent) > _LONGEST_SHIFT:
        return f"{digits}e{exponent}"
    if exponent >= 0:
        return digits + "0" * exponent
    padded = digits.zfill(1 - exponent)
    return f"{padded[:exponent]}.{padded[exponent:]}"


def _bytes(value: bytes | bytearray) -> str:
    return f"bytes:{value.hex()}"


def _null(_: None) -> str:
    return "null"


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _type_name(value: object) -> str:
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


SCALARS: dict[type, Callable[[Any], str]] = {
    str: quote,
    int: _int,
    bool: _bool,
    type(None): _null,
    float: _float,
    bytes: _bytes,
    bytearray: _bytes,
    datetime: _datetime,
    date: _date,
    time: _time,
    timedelta: _timedelta,
    UUID: _uuid,
    Decimal: _decimal,
}
"""Texts of values that are exactly of a type and hold no others: the common case."""

_NATIVE: tuple[tuple[type, Callable[[Any], str]], ...] = (
    (str, quote),
    (int, _int),
    (float, _float),
)
_ENVELOPED: tuple[tuple[type, Callable[[Any], str]], ...] = (
    (datetime, _datetime),  # before date, for a datetime is one
    (date, _date),
    (time, _time),
    (timedelta, _timedelta),
    (Decimal, _decimal),
    (UUID, _uuid),
    (bytes, _bytes),
    (bytearray, _bytes),
)
