"""Settings that lead to more than one server: a Cluster's nodes, independent masters."""

import pytest

from onceguard.rules.address import read_address, read_masters
from onceguard.rules.checks import ProblemError
from tests.unit.rules.test_lock_server import address_of, refusal_of

A, B, C = "redis://a/0", "redis://b/0", "redis://c/0"


def problem_of(urls: list[str]) -> str:
    with pytest.raises(ProblemError) as caught:
        read_masters(urls)
    assert "secret" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("scheme", ["redis+cluster", "rediss+cluster"])
def test_nodes_of_a_cluster_are_read_with_what_one_of_them_says(scheme: str) -> None:
    """All nodes let in the same way; TLS is in the scheme."""
    address = read_address(f"{scheme}://app:secret@a:7000;{scheme}://b")
    assert address.cluster
    assert address.places == (("a", 7000), ("b", 6379))
    assert (address.login["username"], address.login["password"]) == ("app", "secret")
    assert bool(address.login.get("ssl")) is scheme.startswith("rediss")
    assert address.shown == f"{scheme}://app:***@a:7000;{scheme}://b"


def test_a_node_that_is_found_later_is_let_in_the_same_way() -> None:
    """And is shown by its own name, not by those of the setting."""
    node = read_address("redis+cluster://:secret@a;redis+cluster://b").at(("fd00::7", 7001))
    assert node.client | {"db": 0} == {
        "host": "fd00::7",
        "port": 7001,
        "password": "secret",
        "db": 0,
    }
    assert node.shown == "redis+cluster://[fd00::7]:7001"


@pytest.mark.parametrize("url", ["redis+cluster://a/1", "redis+cluster://a?db=3"])
def test_a_cluster_has_one_database(url: str) -> None:
    """SELECT is an error there, for every call."""
    with pytest.raises(ProblemError, match="once_prefix"):
        read_address(url)


def test_a_list_of_nodes_is_one_cluster() -> None:
    """As Celery's users write several brokers."""
    urls = ["redis+cluster://a", "redis+cluster://b"]
    assert address_of(once_url=urls).url == ";".join(urls)


def test_a_list_of_one_is_that_one() -> None:
    """Configuration that is generated makes lists of one."""
    assert address_of(once_url=[A]).url == A


def test_masters_are_read_each_for_itself() -> None:
    """With the same options; each has its own user and database."""
    urls = ["redis://:secret@a/3", "rediss://u:secret2@b:7000", "unix:///run/c.sock"]
    address = address_of(once_url=urls, once_transport_options={"client_name": "once"})
    assert [each.client.get("host") for each in address.masters] == ["a", "b", None]
    assert [each.client["db"] for each in address.masters] == [3, 0, 0]
    assert {each.client["client_name"] for each in address.masters} == {"once"}
    assert address.shown == "redis://:***@a/3;rediss://u:***@b:7000;unix:///run/c.sock"
    assert address.hide("not secret nor secret2") == "not *** nor ***"
    assert "secret" not in repr(address)


@pytest.mark.parametrize(
    ("urls", "says"),
    [
        ([A, B], "lists 2 servers, but a majority that outlives one of them needs 3"),
        ([A, B, A], "lists 'redis://a/0' twice"),
        ([A, B, "redis://a:6379"], "lists 'redis://a:6379' twice"),
        ([A, B, "redis+cluster://:secret@c"], "'redis+cluster://:***@c', but each must be one"),
        ([A, B, "memory://"], "'memory://', but each must be one"),
        ([A, B, "redis://:secret/@c"], "can't be read"),
    ],
)
def test_a_list_that_is_no_set_of_independent_masters_is_refused(
    urls: list[str], says: str
) -> None:
    """Its majority would not mean what it should."""
    assert says in problem_of(urls)


def test_sentinels_are_no_independent_master() -> None:
    """A master behind them may be replaced by one that knows less."""
    told = problem_of([A, B, "sentinel://:secret@c"])
    assert "behind no sentinels" in told


def test_masters_have_no_replicas_to_wait_for() -> None:
    """They confirm by majority; `WAIT` on top of it would promise what it can't."""
    told = refusal_of(once_url=[A, B, C], once_wait_replicas=1)
    assert "once_wait_replicas is 1, but once_url lists independent masters" in told


def test_the_memory_of_a_process_needs_no_place() -> None:
    """Its name is all there is to it."""
    address = address_of(once_url="memory://tests")
    assert address.memory
    assert address.shown == "memory://tests"
