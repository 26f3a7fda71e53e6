"""What masters say together: exhaustively for three and five of them, and as properties."""

from collections.abc import Sequence
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceguard.rules.agreement import agreed, newest, quorum

LOCK = "once1:{once:3}:lock:proj.sync(user_id=7)"
NOTE = "once1:{once:3}:msg:m1"
FENCE = "once1:{once:3}:fence"
TICK = "once1:{once:3}:tick:nightly"

CLAIM_A = "claim mA 1000 task-of-mA"
CLAIM_B = "claim mB 2000 task-of-mB"
LEASE_A = "lease mA nA 1 1000 1000 host:1 task-of-mA"
LEASE_B = "lease mB nB 1 2000 2000 host:2 task-of-mB"
UNKNOWN = "?"
"""In the place of a vote: that master did not answer."""

TICKS = ("500 1000 0 b~1 [1]", "500 2000 0 b~2 [2]")
HOLDS = [
    pytest.param(LOCK, CLAIM_A, CLAIM_B, id="two claims"),
    pytest.param(LOCK, LEASE_A, LEASE_B, id="two leases"),
    pytest.param(LOCK, CLAIM_B, LEASE_A, id="a claim and an older lease"),
]
PAIRS = [*HOLDS, pytest.param(TICK, *TICKS, id="two ticks")]
"""Values of two owners, the one that takes precedence last."""

SIZES = pytest.mark.parametrize("masters", [3, 5])


def votes_of(masters: int, *values: str) -> list[tuple[str, ...]]:
    """All that so many masters can say, of which a majority has answered."""
    told = product([*values, UNKNOWN], repeat=masters)
    return [each for each in told if each.count(UNKNOWN) <= masters - quorum(masters)]


def heard(votes: tuple[str, ...]) -> list[str]:
    """The votes of those that answered."""
    return [each for each in votes if each != UNKNOWN]


def possible(value: str, votes: tuple[str, ...]) -> bool:
    """Whether a majority may have this value, if all that are unknown have it."""
    return votes.count(value) + votes.count(UNKNOWN) >= quorum(len(votes))


@pytest.mark.parametrize(("masters", "least"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_any_two_quorums_have_a_master_in_common(masters: int, least: int) -> None:
    """Half of an even number is no quorum: two halves know nothing of each other."""
    assert quorum(masters) == least
    assert 2 * quorum(masters) > masters


def stands(key: str, votes: Sequence[str], *, masters: int) -> str:
    """The one value that stands on all masters that answered."""
    (value,) = set(agreed(key, votes, masters=masters))
    return value


@SIZES
@pytest.mark.parametrize(("key", "lesser", "greater"), PAIRS)
def test_what_a_majority_has_stands(key: str, lesser: str, greater: str, masters: int) -> None:
    """Whoever is away, and whatever the others say: a grant is never taken back."""
    for votes in votes_of(masters, "", lesser, greater):
        for value in ("", lesser, greater):
            if votes.count(value) >= quorum(masters):
                assert stands(key, heard(votes), masters=masters) == value, votes


@SIZES
@pytest.mark.parametrize(("key", "lesser", "greater"), PAIRS)
def test_what_a_majority_may_have_stands(
    key: str, lesser: str, greater: str, masters: int
) -> None:
    """
    Those that are away may know a holder: freeing its key would be a second run.

    And what no majority can have does not stand in the way of others.
    """
    for votes in votes_of(masters, "", lesser, greater):
        standing = [value for value in (lesser, greater) if possible(value, votes)]
        if len(standing) < 2:
            said = stands(key, heard(votes), masters=masters)
            assert said == (standing[0] if standing else ""), votes


@SIZES
@pytest.mark.parametrize(("key", "lesser", "greater"), HOLDS)
def test_neither_of_two_possible_holders_is_displaced(
    key: str, lesser: str, greater: str, masters: int
) -> None:
    """
    A majority may have either, and what is older, or less, may be what was granted.

    A lease that only a stale master knew once displaced a claim like this; when it had
    ended, the key was free although the claimant's message was queued.
    """
    for votes in votes_of(masters, "", lesser, greater):
        if possible(lesser, votes) and possible(greater, votes):
            said = agreed(key, heard(votes), masters=masters)
            for vote, value in zip(heard(votes), said, strict=True):
                assert value == vote or not vote, votes
                assert value in {"", lesser, greater}


@SIZES
def test_of_two_possible_ticks_the_later_stands(masters: int) -> None:
    """A tick holds nothing: what counts is that its slot is not sent again."""
    for votes in votes_of(masters, "", *TICKS):
        if all(possible(each, votes) for each in TICKS):
            assert stands(TICK, heard(votes), masters=masters) == TICKS[1]


@SIZES
@pytest.mark.parametrize(("key", "lesser", "greater"), PAIRS)
def test_what_stands_goes_on_to_stand(
    key: str, lesser: str, greater: str, masters: int
) -> None:
    """Told to those that answered, it is what any later look finds, whoever is away then."""
    for votes in votes_of(masters, "", lesser, greater):
        said = agreed(key, heard(votes), masters=masters)
        if len(set(said)) == 1:
            for unknown in ("", lesser, greater):
                everybody = [*said, *[unknown] * votes.count(UNKNOWN)]
                assert stands(key, everybody, masters=masters) == said[0], votes


@pytest.mark.parametrize(("key", "lesser", "greater"), PAIRS)
def test_the_order_of_the_masters_does_not_matter(key: str, lesser: str, greater: str) -> None:
    """Every process lists them in its own order, and all must see the same holder."""
    for votes in votes_of(4, "", lesser, greater):
        ways = permutations(heard(votes))
        told = [dict(zip(each, agreed(key, each, masters=4), strict=True)) for each in ways]
        assert all(each == told[0] for each in told), votes


@pytest.mark.parametrize(
    ("votes", "named"),
    [
        ([CLAIM_A, CLAIM_B], CLAIM_B),
        ([LEASE_B, LEASE_A, ""], LEASE_B),
        ([LEASE_A, CLAIM_B, ""], LEASE_A),
        (["", ""], ""),
        ([], ""),
    ],
)
def test_a_running_call_is_named_before_a_queued_one(votes: list[str], named: str) -> None:
    """Where two may have a key, people are told of the one that they can look at."""
    assert newest(votes) == named


@pytest.mark.parametrize(
    "values",
    [
        pytest.param((LEASE_A, LEASE_A.replace(" 1000 1000 ", " 1001 1000 ")), id="lease"),
        pytest.param((CLAIM_A, CLAIM_A.replace(" 1000 ", " 1001 ")), id="claim"),
    ],
)
def test_records_that_differ_are_one_owners(values: tuple[str, str]) -> None:
    """Masters may number one start differently; the key is that owner's all the same."""
    assert stands(LOCK, [*values, ""], masters=3) == values[1]
    assert stands(LOCK, [*values, "", ""], masters=4) == ""
    assert stands(LOCK, [*values, "", ""], masters=5) == values[1]


def test_two_deliveries_of_a_message_are_two_owners() -> None:
    """A lease belongs to a delivery: a minority's dead one does not count for another."""
    other = LEASE_A.replace(" nA ", " nX ")
    assert stands(LOCK, [LEASE_A, other, ""], masters=3) == ""


@pytest.mark.parametrize("name", ["lock", "run", "next"])
@pytest.mark.parametrize("user", ["a}:msg:m1", "}:fence", "}:tick:x", "a}:past:b"])
def test_a_users_key_does_not_say_what_a_redis_key_holds(name: str, user: str) -> None:
    """Keys are the users' to choose; only what the library wrote before them counts."""
    key = f"once1:{{once:3}}:{name}:{user}"
    assert stands(key, [CLAIM_A, "", ""], masters=3) == ""
    assert stands(key, [CLAIM_A, CLAIM_A, ""], masters=3) == CLAIM_A


# Counters


@pytest.mark.parametrize("key", [FENCE, "once1:{once:3}:past:k"])
@given(st.lists(st.integers(1, 10**17).map(str) | st.just(""), min_size=1, max_size=7))
def test_a_counter_is_the_greatest_that_anyone_knows(key: str, votes: list[str]) -> None:
    """A fencing token that went back would let a paused holder write after its successor."""
    said = stands(key, votes, masters=len(votes))
    known = [int(each) for each in votes if each]
    assert said == (str(max(known)) if known else "")


# Notes

NONCES = st.sampled_from(["-", "n1", "n2", "-n1", "-n2"])
PLAIN = st.builds(
    "{} {} {} {}{}{}".format,
    st.sampled_from(["open", "done"]),
    st.integers(0, 6),
    st.integers(0, 6),
    NONCES,
    st.sampled_from(["", " 0", " 7", " 1795284135408084"]),
    st.sampled_from(["", " superseded"]),
)
"""Everything that a script writes of a message, and more."""

VOTES = st.lists(PLAIN | st.just(""), min_size=1, max_size=5)


def joined(votes: list[str]) -> str:
    return stands(NOTE, votes, masters=5)


def facts(note: str) -> tuple[bool, int, int, bool]:
    """Whether done, starts, generation, whether superseded."""
    words = note.split(" ")
    return words[0] == "done", int(words[1]), int(words[2]), words[-1] == "superseded"


@given(VOTES)
def test_joined_notes_forget_nothing(votes: list[str]) -> None:
    """G4, G7: what one master knows of a message is true, and stays true."""
    known = [facts(each) for each in votes if each]
    if not known:
        assert joined(votes) == ""
        return
    assert facts(joined(votes)) == tuple(map(max, zip(*known, strict=True)))


@given(VOTES, st.randoms(use_true_random=False))
def test_notes_join_in_any_order(votes: list[str], chance: object) -> None:
    """Two processes that look at the same masters write the same."""
    shuffled = list(votes)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert facts_or_none(joined(votes)) == facts_or_none(joined(shuffled))


def facts_or_none(note: str) -> tuple[bool, int, int, bool] | None:
    return facts(note) if note else None


@given(VOTES, VOTES)
def test_notes_may_be_joined_bit_by_bit(some: list[str], others: list[str]) -> None:
    """Different minorities are away each time: in the end all is known."""
    at_once = joined([*some, *others])
    step_by_step = joined([joined(some), *others])
    assert facts_or_none(at_once) == facts_or_none(step_by_step)
    assert joined([at_once, *some]) == at_once


@pytest.mark.parametrize(
    ("votes", "note"),
    [
        (["open 1 0 n1 7", "open 2 0 n2 9"], "open 2 0 n2 9"),
        (["open 1 0 n1 7", "open 1 0 -n1 0"], "open 1 0 -n1 0"),
        (["open 2 0 n2 9", "open 1 0 -n1 0"], "open 2 0 n2 9"),
        (["done 0 0 -", "open 1 0 n1 7"], "done 1 0 n1 7"),
        (["done 1 0 n1 7", ""], "done 1 0 n1 7"),
        (["open 0 3 -", "open 1 0 n1 7"], "open 1 3 n1 7"),
        (["open 0 1 - superseded", "open 1 0 n1 7"], "open 1 1 n1 7 superseded"),
        (["open 0 0 - 0 superseded", ""], "open 0 0 - 0 superseded"),
        (["open 1 0 n1 7", "open 1 0 n1 8"], "open 1 0 n1 8"),
    ],
)
def test_the_last_start_is_whose_note_it_is(votes: list[str], note: str) -> None:
    """Its nonce says which delivery may take its lease up again, and that it gave up."""
    assert stands(NOTE, votes, masters=3) == note
    assert stands(NOTE, votes[::-1], masters=3) == note
