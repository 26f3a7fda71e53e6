"""The parts of a call that renews several leases of a partition."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from onceguard.store.contract import Renewed
from onceguard.store.names import text
from onceguard.store.scripts import Call

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SHARED = 2
_KEYS, _ARGS = 3, 7
_SEEN, _UNSEEN = 4, 6


class Renewals:
    """
    A call of ``renew.lua``, lease by lease.

    Args:
        call: As `RedisStore.renew` makes it.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def __len__(self) -> int:
        return len(self._call.args) // _ARGS

    def seen(self, number: int) -> str:
        """Give the record of a lease as it was seen last, '' if never."""
        return str(self._at(number, _SEEN))

    def unseen(self, number: int) -> bool:
        """Whether a lease is to be taken up that was never seen."""
        return bool(self._at(number, _UNSEEN))

    def only(self, number: int, record: str = "") -> Call:
        """Renew, or take up, one lease."""
        return self._part([number], {number: record}, unseen=True)

    def standing(self) -> Call:
        """Renew what stands; take up nothing."""
        return self._part(range(len(self)), {})

    def put(self, records: Mapping[int, str]) -> Call:
        """Put leases where they are missing, with these records."""
        return self._part(records, records)

    def _part(
        self, numbers: Iterable[int], records: Mapping[int, str], *, unseen: bool = False
    ) -> Call:
        keys: list[str] = list(self._call.keys[:_SHARED])
        args: list[str | int] = []
        for number in numbers:
            first = _SHARED + number * _KEYS
            keys += self._call.keys[first : first + _KEYS]
            mine = list(self._call.args[number * _ARGS : (number + 1) * _ARGS])
            mine[_SEEN] = records.get(number, "")
            mine[_UNSEEN] = mine[_UNSEEN] if unseen else ""
            args += mine
        return Call(self._call.script, keys, args)

    def _at(self, number: int, place: int) -> str | int:
        return self._call.args[number * _ARGS + place]


def answers(reply: list[Any]) -> list[tuple[Renewed, str]]:
    """Read what became of each lease, and its record."""
    words = [text(each) for each in reply]
    return list(zip(map(Renewed, words[::2]), words[1::2], strict=True))


def kept(told: Iterable[tuple[Renewed, str]], *, least: int) -> tuple[Renewed, str] | None:
    """Say that a lease was renewed, if that many masters did."""
    renewed = [each for each in told if each[0] in {Renewed.RENEWED, Renewed.SUPERSEDED}]
    if len(renewed) < least:
        return None
    superseded = any(answer is Renewed.SUPERSEDED for answer, _ in renewed)
    record, _ = Counter(record for _, record in renewed).most_common(1)[0]
    return (Renewed.SUPERSEDED if superseded else Renewed.RENEWED), record


def some_record(told: Iterable[tuple[Renewed, str]]) -> str:
    """Give the record that some master renewed, '' if none did."""
    return max((record for answer, record in told if answer is not Renewed.ABSENT), default="")
