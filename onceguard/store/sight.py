"""What several masters knew when they were looked at, and taking a key by that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from onceguard.rules.agreement import agreed, kind_of, quorum
from onceguard.store import scripts
from onceguard.store.scripts import Call, Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onceguard.store.ballot import Voter

_SUBJECT = {
    scripts.CLAIM: 0,
    scripts.START: 1,
    scripts.TICK: 1,
    scripts.SENT: 0,
    scripts.RENEW: 2,
    scripts.FINISH: 0,
}
"""What takes a key that others want, and which of its KEYS that is: only one may win."""

_HOLDS = ("lock", "run", "next")
_DOUBT = 2000
_FOR_EVER = -1
_SKIPPED = 8


@dataclass(frozen=True, slots=True)
class Sight:
    """
    What the masters knew when they were looked at.

    Attributes:
        id: Of the look.
        keys: The strings that were looked at.
        values: On each master that answered, in the order of *keys*.
        lives: Milliseconds that each has left there.
    """

    id: str
    keys: Sequence[str]
    values: dict[Voter, list[str]]
    lives: dict[Voter, list[int]]

    def standing(self, masters: int) -> dict[Voter, list[str]]:
        """Say what each master should know."""
        columns = zip(*self.values.values(), strict=True)
        agreed_on = [
            agreed(key, votes, masters=masters)
            for key, votes in zip(self.keys, columns, strict=True)
        ]
        return dict(zip(self.values, map(list, zip(*agreed_on, strict=True)), strict=True))

    def life(self, at: int, value: str, *, least: int = 0) -> int:
        """
        Say how many milliseconds a value is to live, -1 for ever.

        A holder that *least* masters know lives as long as the last of these says. One
        that fewer know may have a majority, or be over: it is told to the others for as
        long as the doubt lasts.
        """
        seen = [(self.values[each][at], self.lives[each][at]) for each in self.values]
        same = sorted((left for found, left in seen if found == value), reverse=True)
        longest = max(same or [left for found, left in seen if found], default=1)
        if least and kind_of(self.keys[at]) in _HOLDS:
            longest = same[least - 1] if len(same) >= least else min(longest, _DOUBT)
        return longest if longest == _FOR_EVER else max(1, longest)

    def next_token(self) -> int:
        """Give a fencing token that is above all that the masters know."""
        places = [at for at, key in enumerate(self.keys) if kind_of(key) == "fence"]
        known = [int(values[at] or 0) for values in self.values.values() for at in places]
        return max(known, default=0) + 1

    def questions(
        self, call: Call, promise: str, masters: int, agreed_time: tuple[int, int]
    ) -> dict[Voter, Call]:
        """
        Let each master set right what it knows, and take the key then.

        Args:
            call: What takes it.
            promise: Where the promise of this look stands.
            masters: How many there are in all.
            agreed_time: Seconds and microseconds for all of them.
        """
        stands = self.standing(masters)
        seconds, microseconds = agreed_time
        token = max(seconds * 1_000_000 + microseconds, self.next_token())
        places = {key: place for place, key in reversed(list(enumerate(call.keys, 1)))}
        strings = [(at, key) for at, key in enumerate(self.keys) if kind_of(key) != "fence"]
        questions = {}
        for voter, values in self.values.items():
            seen: list[str | int] = []
            for at, key in strings:
                covered = kind_of(key) not in _HOLDS or promise_of(key) == promise
                right = stands[voter][at] if covered else values[at]
                life = self.life(at, right, least=quorum(masters))
                seen += (places[key], values[at], right, life)
            args = (*call.args, *seen, len(strings), self.id, token, seconds, microseconds)
            questions[voter] = Call(_taking(call.script), (*call.keys, promise), args)
        return questions


def takes(call: Call) -> bool:
    """
    Whether a call takes a key.

    The end of a run frees what is its own. That of one that was skipped takes: it must
    know that none began.
    """
    if call.script is scripts.FINISH:
        return call.args[_SKIPPED] != 0
    return call.script in _SUBJECT


def subject(call: Call) -> str:
    """Name the key that a call takes; a tick that waits for its end takes the lock, too."""
    return _whole(call.keys[_SUBJECT[call.script]])


def promise_of(key: str) -> str:
    """Name where the promise stands that looking at a key makes."""
    head, _, name = _whole(key).partition("}:")
    return f"{head}}}:turn:{name}"


def strings(call: Call) -> list[str]:
    """Give the keys of a call that hold strings, each once."""
    return [key for key in dict.fromkeys(call.keys) if kind_of(key) != "index"]


def _whole(key: str) -> str:
    head, _, name = key.partition("}:")
    return f"{head}}}:lock:{name[5:]}" if name.startswith("next:") else key


@cache
def _taking(script: Script) -> Script:
    return Script(script.name, after=("voted", "taken"))
