"""Asking sentinels: who is asked, for how long, and what they say to wrong options."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from traceback import format_exception
from typing import Any

import pytest

from tests.harness.sentinels import NAME, Sentinels, in_step
from tests.harness.waiting import eventually
from tests.store.behind import TIMEOUT, Pair, open_rig_behind, refusal, rig_of, seconds_of
from tests.store.naming import NamingSentinel
from tests.store.rig import Rig, call

OURS, THEIRS = "of-the-servers", "of-the-sentinels"


@pytest.mark.parametrize("hung", [1, 2, 3])
def test_hung_sentinels_cost_one_time_out_together(
    watched: tuple[Sentinels, Rig], hung: int
) -> None:
    """Each of them is given its share; and whoever answered is asked first from then on."""
    sentinels, rig = watched
    for sentinel in sentinels.sentinels[:hung]:
        sentinel.pause()
    if hung == len(sentinels.sentinels):
        error, took = refusal(lambda: rig.claim(call("m1")))
        assert TIMEOUT * 0.9 < took < TIMEOUT * 1.5
        assert error.reason.count("Timeout reading from") == 3
        return
    assert seconds_of(lambda: rig.claim(call("m1"))) < TIMEOUT * 1.2
    rig.store.close()
    assert seconds_of(lambda: rig.claim(call("m2", key="another()"))) < TIMEOUT / 4


def test_hung_sentinels_and_a_hung_master_cost_two_time_outs(
    watched: tuple[Sentinels, Rig],
) -> None:
    """The bound that the reference promises, however much goes wrong together."""
    sentinels, rig = watched
    sentinels.master.pause()
    for sentinel in sentinels.sentinels[:2]:
        sentinel.pause()
    _, took = refusal(lambda: rig.claim(call("m1")))
    assert TIMEOUT * 1.4 < took < TIMEOUT * 2.3


def test_a_hung_master_is_left_with_all_its_connections(
    watched: tuple[Sentinels, Rig],
) -> None:
    """It may hang for hours; each idle connection to it would cost one more call."""
    sentinels, rig = watched
    old, other = sentinels.master, sentinels.replica
    with ThreadPoolExecutor(4) as threads, old.client() as admin:
        admin.client_pause(100)
        list(threads.map(rig.claim, [call(f"m{n}", key=f"task({n})") for n in range(4)]))
    eventually(lambda: in_step(old, other), "it was replicated")
    old.pause()
    _, took = refusal(lambda: rig.claim(call("m5", key="task(5)")))
    assert took < TIMEOUT * 1.5
    sentinels.await_other(old)
    assert seconds_of(lambda: rig.claim(call("m6", key="task(6)"))) < TIMEOUT


def test_without_any_sentinel_the_error_says_so_at_once(
    watched: tuple[Sentinels, Rig],
) -> None:
    """And names each of them; the master may be well, and connections to it are used."""
    sentinels, rig = watched
    rig.claim(call("m1"))
    for sentinel in sentinels.sentinels:
        sentinel.stop()
    assert rig.claim(call("m1")) is None
    rig.store.close()
    error, took = refusal(lambda: rig.claim(call("m1")))
    assert took < TIMEOUT / 2
    assert f"no sentinel leads to the master '{NAME}'" in error.reason
    for sentinel in sentinels.sentinels:
        assert f"127.0.0.1:{sentinel.port}" in error.reason


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"master_name": "other"}, "watches no master of that name"),
        ({"min_other_sentinels": 3}, "it knows 2 other sentinels, not 3"),
        ({"min_other_sentinels": 2}, ""),
    ],
)
def test_what_sentinels_say_to_wrong_options_is_said(
    watched: tuple[Sentinels, Rig], change: dict[str, Any], says: str
) -> None:
    """Each of these has another cure."""
    sentinels, rig = watched
    options = sentinels.options | change
    rig = open_rig_behind(sentinels.url, options, sentinels.master)
    if not says:
        assert rig.claim(call("m1")) is None
        return
    error, took = refusal(lambda: rig.claim(call("m1")))
    assert says in error.reason
    assert took < TIMEOUT


def test_a_wrong_password_is_said_and_not_shown(make: Callable[..., Sentinels]) -> None:
    """To the sentinels or to the master: two passwords, which are easily mixed up."""
    sentinels = make(password=OURS, sentinel_password=THEIRS)
    wrong = {"sentinel_kwargs": {"password": "hunter2"}}
    url = sentinels.url.replace(OURS, "hunter2")
    for where, change in ((sentinels.url, wrong), (url, {})):
        rig = open_rig_behind(where, sentinels.options | change, sentinels.master)
        error, took = refusal(lambda rig=rig: rig.claim(call("m1")))  # type: ignore[misc]
        assert ("names 127.0.0.1" in error.reason) == (not change)
        assert "invalid username-password pair" in error.reason
        assert "hunter2" not in "".join(format_exception(error))
        assert took < TIMEOUT


def test_a_replica_that_a_sentinel_names_is_not_taken_for_the_master(pair: Pair) -> None:
    """It has not heard yet; the next one has."""
    one, other, sentinel = pair
    late = NamingSentinel(other)
    alone = open_rig_behind(late.url, {"master_name": NAME}, other)
    error, _ = refusal(lambda: alone.claim(call("m1")))
    assert "it is a replica" in error.reason
    both = open_rig_behind(f"{late.url};{sentinel.url}", {"master_name": NAME}, other)
    assert both.claim(call("m1")) is None
    with one.client() as client:
        assert client.dbsize() == 2
    late.close()


def test_a_master_that_does_not_say_its_role_is_taken_at_its_sentinels_word(
    pair: Pair,
) -> None:
    """Careful ACLs leave ROLE out; a replica would refuse the first write."""
    with pair[0].client() as admin:
        admin.execute_command("ACL SETUSER default -role")
    assert rig_of(pair).claim(call("m1")) is None
