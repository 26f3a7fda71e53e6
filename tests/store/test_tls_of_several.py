"""TLS to lock servers that are several: the nodes of a Cluster, independent masters."""

from __future__ import annotations

import ssl
from contextlib import ExitStack
from dataclasses import dataclass
from traceback import format_exception
from typing import TYPE_CHECKING, cast
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from redis.crc import key_slot

from onceguard.rules.errors import StoreUnavailable
from onceguard.rules.messages import PARTITIONS, partition
from onceguard.store.contract import Message, Renewed
from onceguard.store.danger import Findings, check_server
from onceguard.store.masters import Masters
from onceguard.store.opening import open_store
from tests.harness.certificates import Authority, TlsServer
from tests.harness.cluster import Cluster
from tests.harness.running import running
from tests.harness.sentinels import in_step
from tests.harness.waiting import eventually
from tests.store.forms import PASSWORD, USER, WRITTEN, Conf, guard_from
from tests.store.rig import PREFIX, Rig, call
from tests.store.voting import App, live_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from onceguard.store.bound import Guard
    from tests.harness.redis_server import RedisServer

pytestmark = pytest.mark.oldest  # what is said of certificates is the driver's
TIMEOUT = 1.0


@dataclass(frozen=True)
class Place:
    """Servers that want a user, a password and a certificate; and the URLs of some."""

    servers: Sequence[RedisServer]
    urls: list[str]

    def rig(self, conf: Conf) -> Rig:
        """A store as an app has it, and a connection past it to one of the servers."""
        address = guard_from(conf).address
        store = open_store(address, prefix=PREFIX, socket_timeout=TIMEOUT)
        return Rig(store, self.servers[0].client())


@pytest.fixture(scope="module")
def cluster(authority: Authority) -> Iterator[Cluster]:
    """Three masters with a replica each, and no port without TLS; tests leave it so."""
    for made in running(Cluster(replicas=1, authority=authority)):
        let_in(made.nodes)
        yield made


@pytest.fixture(scope="module")
def masters(authority: Authority) -> Iterator[list[TlsServer]]:
    """Three servers that know nothing of one another."""
    with ExitStack() as closing:
        made = [TlsServer(authority, clients="yes") for _ in range(3)]
        for server in made:
            closing.callback(server.close)
            server.start()
        let_in(made)
        yield made


def let_in(servers: Sequence[RedisServer]) -> None:
    """Make the user known, which each server must be told."""
    for server in servers:
        with server.client() as admin:
            admin.acl_setuser(USER, enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"],
                              channels=["*"], categories=["+@all"])  # fmt: skip


@pytest.fixture
def nodes(cluster: Cluster) -> Place:
    """The Cluster, of which one node is named."""
    return Place(cluster.nodes, [cluster.urls[0].replace("://", f"://{USER}:{WRITTEN}@")])


@pytest.fixture
def voters(masters: list[TlsServer]) -> Place:
    """The masters, of which each is named."""
    urls = [f"rediss://{USER}:{WRITTEN}@localhost:{each.tls_port}/1" for each in masters]
    return Place(masters, urls)


@pytest.fixture(params=["nodes", "voters"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each of the two."""
    return cast("Place", request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority of whom the servers have not heard."""
    return Authority(tmp_path_factory.mktemp("stranger"))


def files_of(authority: Authority) -> Conf:
    return {
        "ssl_ca_certs": str(authority.ca),
        "ssl_certfile": str(authority.cert),
        "ssl_keyfile": str(authority.key),
    }


def in_the_urls(urls: list[str], authority: Authority) -> Conf:
    query = urlencode({"ssl_cert_reqs": "CERT_REQUIRED", **files_of(authority)})
    return {"once_url": [f"{url}?{query}" for url in urls]}


def in_options(urls: list[str], authority: Authority) -> Conf:
    options = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    return {"once_url": urls, "once_transport_options": options | files_of(authority)}


def login_in_options(urls: list[str], authority: Authority) -> Conf:
    conf = in_options([url.replace(f"{USER}:{WRITTEN}@", "") for url in urls], authority)
    conf["once_transport_options"] |= {"username": USER, "password": PASSWORD}
    return conf


def by_options(urls: list[str], authority: Authority) -> Conf:
    return in_options([url.replace("rediss", "redis") for url in urls], authority)


def unverified(urls: list[str], authority: Authority) -> Conf:
    mine = files_of(authority)
    del mine["ssl_ca_certs"]
    urls = [f"{url}?ssl_cert_reqs=none&ssl_check_hostname=no" for url in urls]
    return {"once_url": urls, "once_transport_options": mine}


@pytest.mark.parametrize(
    "form", [in_the_urls, in_options, login_in_options, by_options, unverified]
)
def test_calls_live_as_on_one_server(
    place: Place, authority: Authority, form: Callable[[list[str], Authority], Conf]
) -> None:
    """However it is written, and on servers that are found as on those that are named."""
    conf = form(place.urls, authority)
    rig = place.rig(conf)
    for server in place.servers:
        server.ask("CONFIG", "RESETSTAT")
    for name in names_in_all_partitions():
        live_through(App(rig, []), name)
    masters = [each for each in place.servers if each.ask("ROLE")[0] == "master"]
    assert all(each.command_counts().get("evalsha") for each in masters)
    assert look(guard_from(conf)) == Findings()


def names_in_all_partitions() -> list[str]:
    """New names of calls, so that each master of a Cluster has some of their keys."""
    names: dict[int, str] = {}
    while len(names) < PARTITIONS:
        name = uuid4().hex
        names[partition(f"{name}()")] = name
    return [*names.values()]


def look(guard: Guard) -> Findings:
    """What a worker finds that starts now."""
    return check_server(guard.address, prefix=PREFIX, socket_timeout=TIMEOUT)


def slot_of(rig: Rig, message: Message) -> int:
    return int(key_slot(rig.names(message).lock(message).encode()))


def test_a_call_is_sent_on_with_tls(
    cluster: Cluster, nodes: Place, authority: Authority
) -> None:
    """ASK and MOVED lead to the port at which a node speaks TLS; the certificate goes along."""
    rig, message = nodes.rig(in_options(nodes.urls, authority)), call("m1", key="moves()")
    record, slot = rig.run(message, "n1"), slot_of(rig, message)
    to = cluster.another(cluster.node_of(slot))
    cluster.move_slot(slot, to, stay_open=True)
    held = rig.store.holder(message)
    cluster.close_slot(slot, to)
    assert held is not None
    assert held.holder.record() == record
    assert rig.renew(message, "n1", record) == (Renewed.RENEWED, record)
    assert rig.finish(message, "n1")


def test_a_replica_takes_over_with_tls(
    cluster: Cluster, nodes: Place, authority: Authority
) -> None:
    """The nodes that are left lead to it, and it knows the lease."""
    rig, message = nodes.rig(in_the_urls(nodes.urls, authority)), call("m1", key="stays()")
    record, slot = rig.run(message, "n1"), slot_of(rig, message)
    dead = cluster.node_of(slot)
    eventually(lambda: in_step(dead, cluster.replica_of(dead)), "it was replicated")
    cluster.kill(dead)
    heir = cluster.await_failover(dead, slot)
    try:
        assert rig.renew(message, "n1", record) == (Renewed.RENEWED, record)
        assert rig.finish(message, "n1")
    finally:
        let_in([dead.start()])
        eventually(lambda: in_step(heir, dead), "the dead one followed its heir")


def test_turns_are_taken_with_tls(voters: Place, authority: Authority) -> None:
    """Pottery has connections of its own; without them contenders outvote one another."""
    rig = voters.rig(in_the_urls(voters.urls, authority))
    live_through(App(rig, []))
    server = rig.store._server
    assert isinstance(server, Masters)
    assert not any(master.away for master in server._turns._masters)


def test_a_majority_of_masters_keeps_locks_while_one_hangs(
    masters: list[TlsServer], voters: Place, authority: Authority
) -> None:
    """The kernel accepts the connection, and nobody answers the greeting."""
    rig = voters.rig(in_options(voters.urls, authority))
    masters[0].pause()
    try:
        live_through(App(rig, []))
    finally:
        masters[0].resume()


def test_an_unknown_authority_is_refused_with_the_way_out(
    place: Place, authority: Authority, stranger: Authority
) -> None:
    """To a publisher, and to a worker that starts; with the URL, and without its password."""
    conf = in_options(place.urls, authority)
    conf["once_transport_options"] |= {"ssl_ca_certs": str(stranger.ca)}
    guard = guard_from(conf)
    with pytest.raises(StoreUnavailable, match="certificate verify failed") as caught:
        guard.store.claim(call("m1"), unique_for=5.0)
    found = look(guard)
    assert found.refusals
    for said in (str(caught.value), *found.refusals):
        assert "signed by an authority that is trusted here" in said
        assert "with ssl_ca_certs in once_transport_options" in said
    assert place.urls[0].replace(WRITTEN, "***") in str(caught.value)
    shown = "".join(format_exception(caught.value)) + repr(caught.value) + repr(found)
    assert "hunter2" not in shown


def test_one_master_whose_authority_is_unknown_is_warned_of(
    masters: list[TlsServer],
    voters: Place,
    authority: Authority,
    stranger: Authority,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The others keep locks; nobody would look for a certificate that ran out on one."""
    conf = in_the_urls(voters.urls, authority)
    urls = conf["once_url"]
    ours, theirs = ({"ssl_ca_certs": str(each.ca)} for each in (authority, stranger))
    urls[1] = urls[1].replace(urlencode(ours), urlencode(theirs))
    rig = voters.rig(conf)
    live_through(App(rig, []))
    (warning,) = [each for each in caplog.messages if "one of several" in each]
    assert f":***@localhost:{masters[1].tls_port}/1" in warning
    assert "signed by an authority that is trusted here" in warning


def test_a_certificate_of_ours_that_is_missing_is_said(
    place: Place, authority: Authority
) -> None:
    """The server cuts the line when we believe that we are in, at times before it says why."""
    conf = in_options(place.urls, authority)
    for name in ("ssl_certfile", "ssl_keyfile"):
        del conf["once_transport_options"][name]
    rig = place.rig(conf)

    def is_said() -> bool:
        with pytest.raises(StoreUnavailable) as caught:
            rig.claim(call("m1"))
        return "with ssl_certfile and ssl_keyfile in" in caught.value.reason

    eventually(is_said, "it was said why")


def test_a_node_that_announces_a_port_without_tls_is_said(
    cluster: Cluster, nodes: Place, authority: Authority, redis_server: RedisServer
) -> None:
    """As Redis 7.0 has it without tls-cluster: the plain port waits for ever, as we would."""
    rig, message = nodes.rig(in_options(nodes.urls, authority)), call("m1", key="plain()")
    wrong, plain = cluster.node_of(slot_of(rig, message)), redis_server.port
    named = cluster.another(wrong)
    url = f"rediss+cluster://{USER}:{WRITTEN}@localhost:{named.port}"
    wrong.ask("CONFIG", "SET", "cluster-announce-tls-port", plain)
    try:
        eventually(lambda: is_told(named, plain), "it was announced")
        with pytest.raises(StoreUnavailable, match="with TLS 'tls-cluster yes'") as caught:
            nodes.rig(in_options([url], authority)).claim(message)
    finally:
        wrong.ask("CONFIG", "SET", "cluster-announce-tls-port", 0)
        eventually(
            lambda: not any(is_told(node, plain) for node in cluster.nodes), "it was put right"
        )
    assert f"its keys are at 127.0.0.1:{plain}: Timeout connecting" in caught.value.reason


def is_told(node: RedisServer, port: int) -> bool:
    """Whether a node has heard that clients, or itself as a replica, are to use a port."""
    return str(port) in f"{node.ask('CLUSTER', 'SLOTS')} {node.ask('ROLE')}"
