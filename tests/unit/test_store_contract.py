"""The contract suite that is shipped to users: it sees faults, and runs in their projects."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from onceguard import testing
from onceguard.store.contract import Renewed
from onceguard.store.opening import open_store
from onceguard.testing import StoreContract
from onceguard.testing.beat import Beat
from onceguard.testing.case import Case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onceguard.store.contract import Store
    from tests.harness.redis_server import RedisServer

pytest_plugins = ("pytester",)

TESTS = [name for name in dir(StoreContract) if name.startswith("test_")]
PARTS = [part for part in StoreContract.__mro__ if part.__module__.startswith(testing.__name__)]

Real = Any
"""The method of a sound store."""


def claims_for_everybody(claim: Real, message: Any, *, unique_for: float) -> None:
    claim(message, unique_for=unique_for)


def claims_for_milliseconds(claim: Real, message: Any, *, unique_for: float) -> Any:
    return claim(message, unique_for=unique_for / 1000)


def holds_for_ever(start: Real, message: Any, **words: Any) -> Any:
    return start(message, **(words | {"lease_ttl": 600.0}))


def counts_no_attempts(start: Real, message: Any, **words: Any) -> Any:
    return replace(start(message, **words), starts=1)


def frees_by_message(finish: Real, message: Any, **words: Any) -> Any:
    held = finish.__self__.holder(message)
    mine = held is not None and held.holder.message_id == message.message_id
    return finish(message, **(words | {"nonce": held.holder.nonce} if mine else words))


def never_loses(renew: Real, leases: Any) -> Any:
    renew(leases)
    return [(Renewed.RETAKEN, lease.seen) for lease in leases]


def ticks_for_everybody(tick: Real, asked: Any) -> Any:
    return tick(replace(asked, claims_slot=False))


FAULTS: list[tuple[Callable[..., Any], str, str, dict[str, Any]]] = [
    (
        claims_for_everybody,
        "claim",
        "test_one_of_two_claims_is_refused_and_learns_who_has_the_key",
        {},
    ),
    (claims_for_everybody, "claim", "test_of_many_claims_at_once_one_is_granted", {}),
    (
        claims_for_milliseconds,
        "claim",
        "test_one_of_two_claims_is_refused_and_learns_who_has_the_key",
        {},
    ),
    (holds_for_ever, "start", "test_a_lease_ends_by_itself", {"own_lease": True}),
    (
        counts_no_attempts,
        "start",
        "test_scope_until_executing_abandons_beside_anothers_claim",
        {},
    ),
    (
        frees_by_message,
        "finish",
        "test_every_end_leaves_a_later_delivery_of_its_message_alone",
        {"own_lease": False},
    ),
    (never_loses, "renew", "test_a_lease_is_lost_to_a_running_successor", {}),
    (ticks_for_everybody, "tick", "test_of_two_beats_one_sends_a_tick", {"policy": None}),
    (
        ticks_for_everybody,
        "tick",
        "test_of_many_beats_at_once_one_sends_a_tick",
        {"policy": "skip"},
    ),
]


@dataclass
class Faulty:
    """A store that gets one method wrong."""

    store: Store
    method: str
    wrong: Callable[..., Any]

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.store, name)
        return partial(self.wrong, real) if name == self.method else real


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[Store]:
    """A sound store."""
    made = open_store(redis_server.socket_url, prefix="contract", socket_timeout=5.0)
    yield made
    made.close()


def keeps(store: Store, test: str, arguments: dict[str, Any]) -> None:
    """Run one test of the contract."""
    case = Case(store, store, short=0.5, long=600.0, slack=1.0)
    method = getattr(StoreContract(), test)
    asks = Beat(case) if "beat" in method.__annotations__ else case
    method(asks, **arguments)


@pytest.mark.parametrize(
    ("wrong", "method", "test", "arguments"),
    [pytest.param(*fault, id=f"{fault[0].__name__}-{fault[2]}") for fault in FAULTS],
)
def test_a_store_with_a_fault_fails_where_a_sound_one_does_not(  # noqa: PLR0913
    store: Store,
    wrong: Callable[..., Any],
    method: str,
    test: str,
    arguments: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A suite that never fails is worth nothing; each fault is one that stores had."""
    monkeypatch.setattr("onceguard.testing.case._PATIENCE", 2.0)
    keeps(store, test, arguments)
    with pytest.raises(AssertionError):
        keeps(cast("Store", Faulty(store, method, wrong)), test, arguments)


def test_no_test_of_the_contract_hides_another() -> None:
    """The parts are put together by inheritance: of two tests of one name one would not run."""
    names = [name for part in PARTS for name in vars(part) if name.startswith("test_")]
    assert [name for name, times in Counter(names).items() if times > 1] == []
    assert sorted(names) == sorted(TESTS)


def test_every_test_of_the_contract_says_why() -> None:
    """Whoever writes a store reads it when that test fails."""
    assert [name for name in TESTS if not getattr(StoreContract, name).__doc__] == []


def test_assertions_of_all_parts_are_explained() -> None:
    """Pytest rewrites the asserts of modules it is told of; "assert False" helps nobody."""
    folder = Path(testing.__file__).parent
    asserting = {path.stem for path in folder.glob("*.py") if "assert " in path.read_text()}
    assert asserting - {"__init__"} <= set(testing._WITH_ASSERTS)


def test_users_run_the_contract_over_a_store_of_their_own(
    pytester: pytest.Pytester, redis_server: RedisServer
) -> None:
    """All that it takes is a class with one fixture; a failure says what was answered."""
    pytester.makepyfile(
        f"""
        import pytest
        from onceguard.store.opening import open_store
        from onceguard.testing import StoreContract

        def open_mine():
            return open_store({redis_server.url!r}, prefix="mine", socket_timeout=5.0)

        class TestMine(StoreContract):
            @pytest.fixture
            def store(self):
                return open_mine()

        class TestFaulty(StoreContract):
            @pytest.fixture
            def store(self):
                store = open_mine()
                store.put_off = lambda message, **words: 7
                return store
        """
    )
    words = ("-k", "put_off_never or drop_settles", "-p", "no:cacheprovider")
    ran = pytester.runpytest_subprocess(*words, timeout=120)
    ran.assert_outcomes(passed=3, failed=1)
    ran.stdout.fnmatch_lines(
        ["*TestFaulty*put_off_never_goes_back*", "E*assert [[]7, 7, 7, 7] == *"]
    )
