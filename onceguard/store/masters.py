"""Independent masters, of which a majority decides."""

from __future__ import annotations

import math
import random
import statistics
import time
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from redis.exceptions import RedisError

from onceguard.rules.agreement import newest, quorum, readable
from onceguard.rules.errors import StoreUnavailable
from onceguard.rules.trust import advised
from onceguard.store import scripts
from onceguard.store.ballot import Ballot, Voter
from onceguard.store.contract import Renewed
from onceguard.store.names import text
from onceguard.store.renewals import Renewals, answers, kept, some_record
from onceguard.store.scripts import LOOK, Call, Script
from onceguard.store.sight import Sight, promise_of, strings, subject, takes
from onceguard.store.tally import TALLIES, decide, grants
from onceguard.store.turn import Turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onceguard.rules.address import Address
    from onceguard.store.server import Undo

_PROMISES = 3
"""For how many time-outs a look makes a master refuse whoever looked before."""

_TRIES = 6
_CLOCK_HOLDS = 5.0
_CONTESTED = ("OUTVOTED", "CHANGED")


class Masters:
    """
    Masters that know nothing of one another; each runs every script, a majority counts.

    This is Redlock (redis.io/topics/distlock) with our scripts in the place of
    ``SET NX PX``, so that a key has a holder that others can read, and a message what is
    remembered of it. Taking a key goes in two rounds, as in Paxos (Lamport 1998): a look
    at what each master knows, which makes it refuse whoever looked before; and the
    script, with a time and a token that are the same for all, on masters that were set
    right first where they had been away, or had forgotten
    (`onceguard.rules.agreement`). pottery's Redlock keeps contenders from outvoting one
    another for ever. Ends, and renewals of what a majority has, compare owners and go
    without.

    Args:
        address: Whose `masters` they are.
        socket_timeout: Longest wait for the masters in one round, in seconds. A call has
            up to three rounds; a master that did not answer is left out of the next
            ones for 5 s, while a majority of the others answers.
    """

    one_partition = True

    def __init__(self, address: Address, *, socket_timeout: float) -> None:
        self._address = address
        self._timeout = socket_timeout
        self._voters = [Voter(each, timeout=self._timeout) for each in address.masters]
        self._turns = Turns(self._voters, timeout=self._timeout)
        self._quorum = quorum(len(self._voters))
        self._ahead = self._looked = 0.0

    def close(self) -> None:
        """Close the connections of this process."""
        self._turns.close()
        for voter in self._voters:
            voter.connections.close()

    def run(self, call: Call, undo: Undo | None = None) -> Any:
        """Run a script on all masters; its reply is what a majority of them says."""
        if call.script is scripts.RENEW:
            return self._renew(call)
        if call.script is scripts.LAST_TICKS:
            return self._last_ticks(call)
        if call.script is scripts.LOOK:
            return self._all_holders(call)
        if takes(call):
            return self._take(call, undo)
        if call.script is scripts.HOLDER:
            return self._holder(call)
        replies = self._tell(call)
        return TALLIES[call.script](list(replies.values()), len(self._voters))

    def _tell(self, call: Call) -> dict[Voter, Any]:
        """Let all masters run a script that takes nothing."""
        if time.monotonic() - self._looked > _CLOCK_HOLDS:
            self._look(call, ())
        return self._heard(self._ask_all(self._voted(call)), call)

    def _take(self, call: Call, undo: Undo | None = None) -> Any:
        """Take a key, or learn who has it."""
        key = subject(call)
        with self._turns.take(key):
            for _ in range(_TRIES):
                ballot = self._try_to_take(call, promise_of(key), undo)
                reply = decide(call.script, list(ballot.replies.values()), len(self._voters))
                if reply is not None and grants(call.script, reply):
                    ballot.close()
                    return reply
                self._take_back(ballot, call.script, undo)
                if reply is not None:
                    return reply
                if len(ballot.replies) < self._quorum and not _contested(ballot):
                    raise self._unavailable(call, self._told(ballot))
                time.sleep(random.uniform(0, self._timeout / 10))  # noqa: S311 - no secret
        raise self._unavailable(call, "the masters do not agree on who has the key")

    def _try_to_take(self, call: Call, promise: str, undo: Undo | None) -> Ballot:
        sight = self._look(call, strings(call), promise=promise)
        questions = sight.questions(call, promise, len(self._voters), self._agreed_time())
        ballot = Ballot(questions, timeout=self._timeout)
        try:
            return ballot.hold()
        except BaseException:  # a time limit, a signal: who would end what was taken?
            self._take_back(ballot, call.script, undo)
            raise

    def _take_back(self, ballot: Ballot, script: Script, undo: Undo | None) -> None:
        """Undo what a taker that was refused got from a few, and may get from the silent."""
        if undo is None:
            ballot.close()
            return
        back = self._voted(undo())
        ballot.close(back.packed_with_source)
        granted = [each for each, reply in ballot.replies.items() if grants(script, reply)]
        if granted:
            self._ballot(dict.fromkeys(granted, back)).close()

    def _renew(self, call: Call) -> list[str]:
        """
        Renew what a majority has, and put it where it is missing.

        A lease that a majority has lost may be another's by now: it is taken as any
        key is.
        """
        leases = Renewals(call)
        heard = {each: answers(reply) for each, reply in self._tell(leases.standing()).items()}
        told: list[str] = []
        missing: dict[Voter, dict[int, str]] = {voter: {} for voter in heard}
        for number in range(len(leases)):
            known = {voter: each[number] for voter, each in heard.items()}
            result = kept(known.values(), least=self._quorum)
            if result is not None:
                told += (result[0].value, result[1])
                for voter, (answer, _) in known.items():
                    if answer is Renewed.ABSENT:
                        missing[voter][number] = result[1]
            elif record := leases.seen(number) or some_record(known.values()):
                told += map(text, self._take(leases.only(number, record)))
            elif leases.unseen(number):
                told += map(text, self._take(leases.only(number)))
            else:
                told += (Renewed.ABSENT.value, "")
        put = {
            voter: self._voted(leases.put(records))
            for voter, records in missing.items()
            if records
        }
        self._ballot(put).close()
        return told

    def _last_ticks(self, call: Call) -> list[Any]:
        """Read the last ticks that stand; where there is none, note what was seen first."""
        sight = self._look(call, call.keys)
        stands = next(iter(sight.standing(len(self._voters)).values()))
        unseen = [at for at, state in enumerate(stands) if not state and call.args[at] != 0]
        if unseen:
            keys = [call.keys[at] for at in unseen]
            self._tell(Call(call.script, keys, [call.args[at] for at in unseen]))
        seconds, microseconds = self._agreed_time()
        read = [" ".join(state.split(" ")[:4]) for state in stands]
        return [seconds * 1000 + microseconds // 1000, *read]

    def _holder(self, call: Call) -> tuple[str, int]:
        return self._holder_of(0, self._look(call, call.keys))

    def _all_holders(self, call: Call) -> list[str | int]:
        sight = self._look(call, call.keys)
        told: list[str | int] = [*self._agreed_time()]
        for at in range(len(call.keys)):
            told += self._holder_of(at, sight)
        return told

    def _holder_of(self, at: int, sight: Sight) -> tuple[str, int]:
        stands = sight.standing(len(self._voters)).values()
        record = newest([values[at] for values in stands])
        left = sight.life(at, record) if record else 0
        return record, math.ceil((left - 2) / 1.01)  # as voted.lua

    def _look(self, call: Call, keys: Sequence[str], *, promise: str = "") -> Sight:
        """Read keys on all masters, and their clocks; with *promise* make them heed it."""
        look = Call(LOOK, keys)
        look_id = uuid4().hex
        if promise:
            look = Call(
                LOOK, (*keys, promise), (look_id, int(_PROMISES * self._timeout * 1000))
            )
        asked = time.monotonic()
        ballot = self._ask_all(look)
        for voter, reply in list(ballot.replies.items()):
            if not all(map(readable, keys, map(text, reply[2::2]))):
                ballot.errors[voter] = RedisError("a key of ours holds what we never write")
                del ballot.replies[voter]
        replies = self._heard(ballot, call)
        clocks = [int(each[0]) + int(each[1]) / 1e6 for each in replies.values()]
        now = time.monotonic()
        self._ahead = statistics.median_low(clocks) - (asked + now) / 2
        self._looked = now
        return Sight(
            id=look_id,
            keys=keys,
            values={voter: [*map(text, reply[2::2])] for voter, reply in replies.items()},
            lives={voter: [*map(int, reply[3::2])] for voter, reply in replies.items()},
        )

    def _ballot(self, questions: dict[Voter, Call]) -> Ballot:
        return Ballot(questions, timeout=self._timeout).hold()

    def _heard(self, ballot: Ballot, call: Call) -> dict[Voter, Any]:
        """
        Give the replies of masters, if these are a majority.

        Raises:
            StoreUnavailable: They are not.
        """
        ballot.close()
        if len(ballot.replies) < self._quorum:
            raise self._unavailable(call, self._told(ballot))
        return ballot.replies

    def _ask_all(self, call: Call) -> Ballot:
        """Ask the masters that do not rest, and these too if the others are no majority."""
        ballot = self._ballot({voter: call for voter in self._voters if not voter.rests})
        rest = [each for each in self._voters if each not in {*ballot.replies, *ballot.errors}]
        if len(ballot.replies) < self._quorum and rest:
            ballot.add(self._ballot(dict.fromkeys(rest, call)))
        return ballot

    def _agreed_time(self) -> tuple[int, int]:
        seconds, part = divmod(time.monotonic() + self._ahead, 1)
        return int(seconds), int(part * 1e6)

    def _voted(self, call: Call) -> Call:
        """Let a script take the time that the masters agreed on."""
        return Call(_voting(call.script), call.keys, (*call.args, *self._agreed_time()))

    def _told(self, ballot: Ballot) -> str:
        answered = f"{len(ballot.replies)} of {len(self._voters)} masters answered"
        errors = (f"{each.address.shown}: {why}" for each, why in ballot.errors.items())
        return "; ".join((answered, *errors))

    def _unavailable(self, call: Call, reason: str) -> StoreUnavailable:
        return StoreUnavailable(
            server=self._address.shown,
            operation=call.script.name,
            reason=advised(self._address.hide(reason)),
        )


@cache
def _voting(script: Script) -> Script:
    return Script(script.name, writes=script.writes, after=("voted",))


def _contested(ballot: Ballot) -> bool:
    """Whether another taker was quicker on some master."""
    return any(word in str(error) for error in ballot.errors.values() for word in _CONTESTED)
