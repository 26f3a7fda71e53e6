"""
What several independent masters say together about a key.

Values are what the masters gave that answered, '' where there is none. A value stands
that a majority may have: it would be wrong to free a key because the masters that know
its holder are away.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NOTE = re.compile(r"(open|done) (\d+) (\d+) (\S+)(?: (\d+))?( superseded)?")


def quorum(masters: int) -> int:
    """Give the least number of masters that is more than half of them."""
    return masters // 2 + 1


def kind_of(key: str) -> str:
    """Say what a Redis key of ours holds: ``lock``, ``run``, ``msg``, ``index`` and so on."""
    return key.partition("}:")[2].partition(":")[0]


def readable(key: str, value: str) -> bool:
    """Whether a value is one that our scripts write, or none."""
    if not value:
        return True
    kind = kind_of(key)
    try:
        if kind == "msg":
            _Note.read(value)
        elif kind in {"fence", "past"}:
            int(value)
        else:
            (_tick_rank if kind == "tick" else _hold_rank)(value)
    except (ValueError, IndexError):
        return False
    return True


def agreed(key: str, votes: Sequence[str], *, masters: int) -> list[str]:
    """
    Say which value of a key stands on each of the masters.

    Args:
        key: Its name, which says what it holds.
        votes: Its values on the masters that answered.
        masters: How many there are in all.

    Returns:
        The value for each of *votes*. They are alike, except where a majority may
        have either of two holders: nobody can tell which, and both are left.

    Raises:
        ValueError: Someone else wrote one of them; see `readable`.
    """
    if len(set(votes)) == 1:
        return list(votes)
    kind = kind_of(key)
    least = quorum(masters) - (masters - len(votes))
    if kind == "msg":
        return [_joined(votes)] * len(votes)
    if kind in {"fence", "past"}:
        return [max(filter(None, votes), key=int)] * len(votes)
    if kind == "tick":
        possible = _possible(votes, _tick_rank, least=least)
        return [possible[0] if possible else ""] * len(votes)
    possible = _possible(votes, _hold_rank, least=least)
    if len(possible) < 2:  # noqa: PLR2004 - the only one, or none
        return [possible[0] if possible else ""] * len(votes)
    owners = {_hold_rank(each).owner for each in possible}
    return [
        vote if vote and _hold_rank(vote).owner in owners else possible[0] for vote in votes
    ]


def newest(votes: Sequence[str]) -> str:
    """Say which of several holders to name: see `_hold_rank`."""
    return max(filter(None, votes), key=_hold_rank, default="")


class _Rank(NamedTuple):
    """Whose a value is, and how values of different owners are ordered."""

    order: tuple[int, ...]
    owner: tuple[str, ...]


def _hold_rank(value: str) -> _Rank:
    """
    Rank leases before claims, newer before older.

    Nobody takes a key while its holder may have a majority, so of two leases the one
    with the greater fencing token began when the other was over.
    """
    fields = value.split(" ")
    if fields[0] == "lease":
        return _Rank((1, int(fields[4])), tuple(fields[:3]))
    if fields[0] == "claim":
        return _Rank((0, int(fields[2])), tuple(fields[:2]))
    raise ValueError(f"{value[:200]!r} is not the record of a holder")


def _tick_rank(value: str) -> _Rank:
    """Rank the later tick before the earlier, and any before that an entry was seen."""
    _, claimed, _, claimant = value.split(" ")[:4]
    return _Rank((int(claimant != "-"), int(claimed)), (claimant,))


def _possible(votes: Sequence[str], rank: Callable[[str], _Rank], *, least: int) -> list[str]:
    """Give a value for each owner that a majority may have, the newest first."""
    ranked = sorted((rank(vote), vote) for vote in votes if vote)
    counts = Counter(each.owner for each, _ in ranked)
    found = {each.owner: vote for each, vote in ranked if counts[each.owner] >= least}
    return list(found.values())[::-1]


class _Note(NamedTuple):
    """A message's record."""

    done: bool
    starts: int
    generation: int
    nonce: str
    token: str | None
    superseded: bool

    @classmethod
    def read(cls, text: str) -> _Note:
        found = _NOTE.fullmatch(text)
        if found is None:
            raise ValueError(f"{text[:200]!r} is not the record of a message")
        state, starts, generation, nonce, token, superseded = found.groups()
        return cls(
            state == "done", int(starts), int(generation), nonce, token, bool(superseded)
        )

    @property
    def age(self) -> tuple[int, bool, int]:
        """Later starts are newer; of one start, that it was given up is news."""
        given_up = len(self.nonce) > 1 and self.nonce.startswith("-")
        return self.starts, given_up, int(self.token or 0)


def _joined(votes: Sequence[str]) -> str:
    """
    Join what is known of a message: what happened to it once stays true.

    A quorum that answers has a master in common with the one that recorded
    completion, so that any vote for it counts.
    """
    notes = [_Note.read(vote) for vote in votes if vote]
    newest = max(notes, key=lambda note: note.age)
    state = "done" if any(note.done for note in notes) else "open"
    generation = max(note.generation for note in notes)
    words = [state, str(newest.starts), str(generation), newest.nonce]
    if newest.token is not None:
        words.append(newest.token)
    if any(note.superseded for note in notes):
        words.append("superseded")
    return " ".join(words)
