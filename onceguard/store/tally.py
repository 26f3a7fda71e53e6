"""What the replies of several masters mean together."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from onceguard.rules.agreement import newest, quorum
from onceguard.store import scripts
from onceguard.store.contract import Answer
from onceguard.store.names import text

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from onceguard.store.scripts import Script

    Tally = Callable[[Sequence[Any], int], Any]

_TIME_LEFT = {scripts.CLAIM: 1, scripts.START: 2, scripts.TICK: 6}


def decide(script: Script, replies: Sequence[Any], masters: int) -> Any:
    """
    Say what the replies to a script that takes a key mean; None: nothing yet.

    A majority must have said the same. Refusals may name different holders, where
    nobody can tell which of two has a majority: refused it is.
    """
    if len(replies) < quorum(masters):
        return None
    alike = Counter(_without_time_left(script, reply) for reply in replies)
    said, count = alike.most_common(1)[0]
    if count >= quorum(masters):
        those = [each for each in replies if _without_time_left(script, each) == said]
        return max(those, key=lambda each: _time_left(script, each))
    refusals = [each for each in replies if not grants(script, each)]
    if len(refusals) < quorum(masters):
        return None
    return _weightiest(script, refusals)


def grants(script: Script, reply: Any) -> bool:
    """Whether a reply says that the key was taken, which can be undone."""
    if script is scripts.CLAIM:
        return bool(reply == 1)
    if script is scripts.START:
        return text(reply[0]) == Answer.ACQUIRED
    return True


def _weightiest(script: Script, refusals: Sequence[Any]) -> Any:
    """Choose the refusal after which least can be lost: a message that is put off is not."""
    if script is scripts.CLAIM:
        return _naming_newest(refusals, 0)
    for answer in (Answer.DUPLICATE_DELIVERY, Answer.CONFLICT):
        those = [each for each in refusals if text(each[0]) == answer]
        if those:
            return _naming_newest(those, 1)
    return None


def _naming_newest(refusals: Sequence[Any], place: int) -> Any:
    name = newest([text(each[place]) for each in refusals])
    return next(each for each in refusals if text(each[place]) == name)


def _without_time_left(script: Script, reply: Any) -> Hashable:
    """Give a reply as others can be compared with it: milliseconds differ."""
    if not isinstance(reply, list):
        return int(reply)
    place = _TIME_LEFT.get(script, len(reply))
    return tuple(map(_plain, [*reply[:place], *reply[place + 1 :]]))


def _time_left(script: Script, reply: Any) -> int:
    """A master that missed renewals knows less of it."""
    place = _TIME_LEFT.get(script)
    return int(reply[place]) if place is not None and isinstance(reply, list) else 0


def _plain(item: Any) -> Hashable:
    if isinstance(item, list):
        return tuple(map(_plain, item))
    return text(item) if isinstance(item, bytes) else item


def _held(replies: Sequence[int], masters: int) -> int:
    """Whether a majority may have had it, those that did not answer included."""
    having = sum(map(int, replies))
    return int(having > 0 and having + masters - len(replies) >= quorum(masters))


def _most(replies: Sequence[int], _: int) -> int:
    return max(map(int, replies))


def _usual(replies: Sequence[int], _: int) -> int:
    return statistics.median_low(map(int, replies))


def _all(replies: Sequence[list[Any]], _: int) -> list[str]:
    """Not every index has everything: a master may have been away."""
    return list(dict.fromkeys(text(name) for reply in replies for name in reply))


TALLIES: dict[Script, Tally] = {
    scripts.UNCLAIM: _held,
    scripts.FINISH: _held,
    scripts.ABANDON: _held,
    scripts.SHORTEN: _held,
    scripts.PUT_OFF: _most,
    scripts.DROP: _held,
    scripts.FORGET: _usual,
    scripts.UNSEND: _held,
    scripts.PROBE: _most,
    scripts.LISTED: _all,
}
"""How the replies to each script that takes no key are read."""
