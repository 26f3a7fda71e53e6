"""What is found wrong with a lock server when a worker or beat starts."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onceguard.rules.address import read_address
from onceguard.store import scripts
from onceguard.store.danger import COMMANDS, Findings, check_server
from onceguard.store.opening import open_store
from tests.harness.redis_server import RedisServer, free_port
from tests.harness.sentinels import NAME, Sentinels
from tests.store.behind import Pair, seconds_of
from tests.store.retelling import RetellingProxy
from tests.store.rig import PREFIX, Rig
from tests.store.tour import tour

TIMEOUT = 0.4
USER, SECRET = "app", "hunter2"


def look(url: str, options: dict[str, Any] | None = None) -> Findings:
    address = read_address(url, options)
    found = check_server(address, prefix=PREFIX, socket_timeout=TIMEOUT)
    assert SECRET not in repr(found)
    return found


def only_refusal(found: Findings) -> str:
    (refusal,) = found.refusals
    assert found.warnings == found.notes == ()
    return refusal


def only_warning(found: Findings) -> str:
    (warning,) = found.warnings
    assert found.refusals == found.notes == ()
    return warning


def test_nothing_is_wrong_with_a_server_as_it_comes(redis_server: RedisServer) -> None:
    """A warning that everybody sees is a warning that nobody reads."""
    assert look(redis_server.url) == Findings()
    with redis_server.client() as client:
        assert client.dbsize() == 0


def test_nothing_is_wrong_behind_sentinels(make: Callable[..., Sentinels]) -> None:
    """The master that they name is looked at, not they."""
    sentinels = make()
    assert look(sentinels.url, sentinels.options) == Findings()


@pytest.fixture
def retold(redis_server: RedisServer) -> Iterator[Callable[[bytes], str]]:
    """Where the server says that it is of another version."""
    proxies: list[RetellingProxy] = []
    with redis_server.client() as client:
        version = str(client.info("server")["redis_version"]).encode()

    def tell(other: bytes) -> str:
        said = b"redis_version:" + version
        proxies.append(RetellingProxy(redis_server.port, said, b"redis_version:" + other))
        return f"redis://127.0.0.1:{proxies[-1].port}/0"

    yield tell
    for proxy in proxies:
        proxy.close()


@pytest.mark.parametrize("version", [b"6.0.16", b"5.0.1", b"2.8"])
def test_a_server_that_is_too_old_is_refused(
    retold: Callable[[bytes], str], version: bytes
) -> None:
    """Its first renewal would fail: GETEX is of 6.2."""
    refusal = only_refusal(look(retold(version)))
    assert f"is Redis {version.decode()}" in refusal
    assert "6.2 or newer is needed" in refusal
    assert "Upgrade it, or set once_url" in refusal


@pytest.mark.parametrize("version", [b"6.2.0", b"6.10", b"10.0", b"255.0", b"?", b""])
def test_a_server_that_is_new_enough_or_unknown_is_not(
    retold: Callable[[bytes], str], version: bytes
) -> None:
    """Versions are numbers; and servers that are like Redis have their own."""
    assert look(retold(version)) == Findings()


def test_a_replica_is_refused(pair: Pair) -> None:
    """Every claim would fail there, or be lost at the next synchronisation."""
    one, other, _ = pair
    refusal = only_refusal(look(other.url))
    assert f"is a replica of 127.0.0.1:{one.port}" in refusal
    assert "Set once_url to the master" in refusal


def test_a_replica_is_refused_though_it_does_not_say_what_it_is(pair: Pair) -> None:
    """It refuses to write all the same."""
    with pair[1].client() as admin:
        admin.execute_command("ACL SETUSER default -info")
    found = look(pair[1].url)
    assert "is a replica of another server" in found.refusals[0]
    assert len(found.notes) == 1


def test_a_sentinel_is_refused_as_a_lock_server(make: Callable[..., Sentinels]) -> None:
    """Easily written: redis:// in place of sentinel://."""
    url = make().url.split(";")[0].replace("sentinel://", "redis://")
    refusal = only_refusal(look(url))
    assert "is a Sentinel, which keeps no locks" in refusal
    assert "once_transport_options={'master_name'" in refusal


@pytest.mark.parametrize(
    "rights",
    ["-@scripting", "-eval", "-evalsha", "-zadd", "-getex", "-@write", "resetkeys ~other:*"],
)
def test_scripts_that_are_not_allowed_are_refused_with_what_allows_them(
    own_redis_server: RedisServer, rights: str
) -> None:
    """The rule in the sentence is complete: with it alone every script runs."""
    with own_redis_server.client() as admin:
        admin.execute_command(f"ACL SETUSER {USER} on >{SECRET} ~* +@all {rights}")
        url = own_redis_server.url.replace("://", f"://{USER}:{SECRET}@")
        refusal = only_refusal(look(url))
        assert "refuses the scripts" in refusal
        assert f"{USER}:***@" in refusal
        rule = refusal.partition("what they need: ")[2]
        admin.execute_command(f"ACL SETUSER {USER} reset on >{SECRET}")
        admin.execute_command(rule)
    assert look(url) == Findings()
    store = open_store(url, prefix=PREFIX, socket_timeout=5.0)
    for step in tour(Rig(store, own_redis_server.client()), own_lease=False).values():
        step()


def test_the_commands_that_are_asked_for_are_those_of_the_scripts() -> None:
    """A script that learns a new command must be allowed it, and probed for it."""
    folder = Path(scripts.__file__).parent / "lua"
    used = {
        path.stem: set(re.findall(r"redis\.call\('([A-Z]+)'", path.read_text()))
        for path in folder.glob("*.lua")
    }
    probed = used.pop("probe")
    assert probed == set.union(*used.values())
    outside = {"EVAL", "EVALSHA", "INFO", "ROLE", "SELECT", "WAIT"}
    assert {name.upper() for name in COMMANDS} == probed | outside


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl"])
@pytest.mark.parametrize(
    ("limit", "says"), [("100mb", "at its limit of 100.00M"), ("0", "once maxmemory is set")]
)
def test_a_server_that_evicts_is_warned_of(
    own_redis_server: RedisServer, policy: str, limit: str, says: str
) -> None:
    """Locks have a TTL, so that volatile-* drops them first (FACTS, Locks 5)."""
    with own_redis_server.client() as admin:
        admin.config_set("maxmemory-policy", policy)
        admin.config_set("maxmemory", limit)
    warning = only_warning(look(own_redis_server.url))
    assert f"maxmemory-policy {policy}" in warning
    assert says in warning
    assert "Set 'maxmemory-policy noeviction' in redis.conf" in warning


def test_a_server_that_shows_nothing_is_no_fault(own_redis_server: RedisServer) -> None:
    """Managed servers and careful ACLs: one note, for whoever looks."""
    with own_redis_server.client() as admin:
        admin.execute_command("ACL SETUSER default -config -info -role")
    (note,) = look(own_redis_server.url).notes
    assert "does not show its version" in note


def test_a_server_that_is_away_is_no_fault() -> None:
    """A host may boot before its lock server does."""
    url = f"redis://:{SECRET}@127.0.0.1:{free_port()}/0"
    assert "does not answer" in only_warning(look(url))
    sentinel = look(url.replace("redis", "sentinel"), {"master_name": NAME})
    assert "no sentinel leads to the master" in only_warning(sentinel)


def test_a_hung_server_costs_one_time_out(own_redis_server: RedisServer) -> None:
    """Of a worker's start; it is asked again when it is needed."""
    own_redis_server.pause()
    took = seconds_of(lambda: only_warning(look(own_redis_server.url)))
    assert TIMEOUT * 0.9 < took < TIMEOUT * 1.8


def test_a_server_that_takes_no_writes_at_present_is_no_fault(
    own_redis_server: RedisServer,
) -> None:
    """Its replicas may be away for a moment."""
    with own_redis_server.client() as admin:
        admin.config_set("min-replicas-to-write", 1)
    assert "takes no locks at present" in only_warning(look(own_redis_server.url))


def test_a_wrong_password_is_said(own_redis_server: RedisServer) -> None:
    """When the worker starts, and not only with its first task."""
    own_redis_server.require("the-right-one")
    url = own_redis_server.url.replace("://", f"://:{SECRET}@")
    for wrong in (url, own_redis_server.url):
        refusal = only_refusal(look(wrong))
        assert "does not let us in" in refusal
        assert "Write its user and password in once_url" in refusal
