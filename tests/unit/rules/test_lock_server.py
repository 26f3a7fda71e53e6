"""Which server holds the locks, and how to be let in there."""

import ssl
from typing import Any

import pytest
from celery import Celery
from celery.backends.redis import RedisBackend

from onceguard.rules.address import Address
from onceguard.rules.errors import InvalidSettings
from onceguard.rules.lock_server import backend_of, broker_of, choose
from onceguard.rules.settings import read

CA, SECRET = "/ca.pem", "secret"


def address_of(**conf: Any) -> Address:
    """The lock server of an app with these settings."""
    app = Celery(set_as_current=False, fixups=[])
    app.conf.update(conf)
    settings = read(app.conf.get, conf)
    return choose(settings, broker_of(app.conf), backend_of(app.conf))


def refusal_of(**conf: Any) -> str:
    with pytest.raises(InvalidSettings) as caught:
        address_of(**conf)
    assert "secret" not in str(caught.value) + repr(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "broker", "backend", "chosen"),
    [
        ("redis://own", "redis://broker", "redis://backend", "redis://own"),
        (None, "redis://broker", "redis://backend", "redis://broker"),
        (None, "rediss://broker", None, "rediss://broker"),
        (None, "redis+socket:///run/r.sock", None, "redis+socket:///run/r.sock"),
        (None, "unix:///run/r.sock", None, "unix:///run/r.sock"),
        (None, "amqp://broker", "redis://backend", "redis://backend"),
        (None, ["amqp://a", "redis://b"], None, "redis://b"),
        (None, "amqp://a;redis://b;redis://c", None, "redis://b"),
        (None, "sentinel://a;sentinel://b", None, "sentinel://a;sentinel://b"),
        (None, ["sentinel://a", "sentinel://b"], None, "sentinel://a;sentinel://b"),
        (None, ["redis://a", "sentinel://b"], None, "redis://a"),
        (None, None, "REDIS://backend", "REDIS://backend"),
    ],
)
def test_locks_are_kept_on_the_first_redis_there_is(
    url: str | None, broker: Any, backend: Any, chosen: str
) -> None:
    """No set-up is needed where the broker is Redis; all processes must agree on one."""
    options = {"broker_transport_options": {"master_name": "m"}}
    address = address_of(once_url=url, broker_url=broker, result_backend=backend, **options)
    assert address.url == chosen


@pytest.mark.parametrize(
    ("broker", "backend", "says"),
    [
        (None, None, "neither is set"),
        ("amqp://u:secret@host//", "rpc://", "amqp://u:***@host//, rpc://"),
        ("memory://", "db+sqlite:///x", "Set once_url="),
    ],
)
def test_without_a_redis_the_way_out_is_named(broker: Any, backend: Any, says: str) -> None:
    """It is the first thing a RabbitMQ project sees."""
    told = refusal_of(broker_url=broker, result_backend=backend)
    assert says in told
    assert "once_url" in told


def test_what_the_broker_is_told_counts_where_its_url_does() -> None:
    """Nobody should write master name and certificates twice."""
    told = {
        "broker_url": "sentinel://:secret@a;sentinel://b",
        "broker_transport_options": {
            "master_name": "main",
            "sentinel_kwargs": {"password": "theirs"},
            "visibility_timeout": 60,
            "password": "kombu does not read this",
        },
        "broker_use_ssl": {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": CA},
    }
    address = address_of(**told)
    assert address.master_name == "main"
    assert address.sentinel_login == {"password": "theirs"}
    assert address.login == {
        "password": "secret",
        "ssl": True,
        "ssl_cert_reqs": "required",
        "ssl_ca_certs": CA,
        "db": 0,
    }
    assert address_of(**told, once_url="sentinel://:secret@a;sentinel://b") == address


def test_what_the_backend_is_told_counts_where_its_url_does() -> None:
    """With the broker on RabbitMQ the result backend is the Redis that there is."""
    address = address_of(
        broker_url="amqp://",
        result_backend="sentinel://a/1",
        result_backend_transport_options={"master_name": "main"},
        redis_backend_use_ssl={"ssl_cert_reqs": "required"},
        redis_password=SECRET,
        redis_username="app",
    )
    assert address.master_name == "main"
    assert address.login == {
        "username": "app",
        "password": "secret",
        "ssl": True,
        "ssl_cert_reqs": "required",
        "db": 1,
    }


def test_what_celerys_servers_are_told_is_not_told_to_another() -> None:
    """A password or a certificate is for whom it was given."""
    conf = {
        "broker_url": "redis://broker",
        "broker_use_ssl": {"ssl_cert_reqs": "none"},
        "broker_password": "secret",
        "result_backend": "redis://backend",
        "redis_password": "secret",
    }
    assert address_of(**conf, once_url="redis://own").login == {"db": 0}
    assert "ssl" not in address_of(**conf, once_url="redis://backend").login


def test_our_own_options_take_the_place_of_the_brokers() -> None:
    """Half of each would be a third thing that nobody wrote."""
    address = address_of(
        broker_url="sentinel://a",
        broker_transport_options={"master_name": "main", "min_other_sentinels": 2},
        once_transport_options={"master_name": "locks"},
    )
    assert (address.master_name, address.min_other_sentinels) == ("locks", 0)


@pytest.mark.parametrize(
    ("conf", "where"),
    [
        ({"broker_url": "sentinel://:secret@a"}, "broker_transport_options={"),
        (
            {"broker_url": "amqp://", "result_backend": "sentinel://:secret@a"},
            "result_backend_transport_options={",
        ),
        ({"once_url": "sentinel://:secret@a"}, "once_transport_options={"),
        (
            {"broker_url": "sentinel://:secret@a", "once_transport_options": {}},
            "once_transport_options={",
        ),
    ],
)
def test_a_missing_master_name_is_asked_for_where_it_belongs(
    conf: dict[str, Any], where: str
) -> None:
    """The sentence is to be copied into celeryconfig."""
    assert f"Set {where}'master_name': 'mymaster'}}" in refusal_of(**conf)


def test_an_unreadable_url_is_an_invalid_setting() -> None:
    """And the password is not in its text, nor in the chain of exceptions behind it."""
    with pytest.raises(InvalidSettings) as caught:
        address_of(broker_url="redis://:sec/ret@host/0")
    assert "broker_url='redis://:***@host/0'" in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_broker_over_tls_without_a_word_on_certificates_is_trusted_as_celery_does() -> None:
    """It says "defaulting to insecure SSL behaviour"; with our own URL nobody said so."""
    assert address_of(broker_url="rediss://h").login["ssl_cert_reqs"] == "none"
    careful = address_of(broker_url="rediss://h", broker_use_ssl={"ssl_ca_certs": CA})
    assert "ssl_cert_reqs" not in careful.login
    assert "ssl_cert_reqs" not in address_of(once_url="rediss://h").login
    query = address_of(broker_url="rediss://h?ssl_cert_reqs=CERT_REQUIRED")
    assert query.login["ssl_cert_reqs"] == "required"


@pytest.mark.parametrize("flag", [True, False, None])
def test_a_switch_in_place_of_certificates_means_nothing(flag: bool | None) -> None:
    """It does for AMQP; kombu's Redis transport passes over it."""
    assert address_of(broker_url="redis://h", broker_use_ssl=flag).login == {"db": 0}


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://host:7/3",
        "redis://app:p%40ss%2F@host:7/3",
        "redis://:p@ss@host",
        "rediss://:p%2Bs@host/1?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=%2Fca.pem",
        "rediss://host?ssl_cert_reqs=optional&ssl_certfile=/c&ssl_keyfile=/k",
        "socket:///run/r.sock?virtual_host=2&password=x%25y",
    ],
)
def test_a_url_is_read_as_celerys_result_backend_reads_it(url: str) -> None:
    """The same words must lead to the same server, database and certificates."""
    app = Celery(set_as_current=False, fixups=[])
    theirs = RedisBackend(app=app, url=url).connparams
    address = address_of(once_url=url)
    ours = dict(address.login)
    for ours["host"], ours["port"] in address.places:
        pass
    ours["path"] = ours.pop("unix_socket_path", None)
    for name in ("host", "port", "path", "db", "username", "password"):
        assert ours.get(name) == theirs.get(name), name
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        assert ours.get(name) == theirs.get(name), name
    assert bool(ours.get("ssl")) == ("ssl_cert_reqs" in theirs)
    if "ssl" in ours:
        verify = theirs["ssl_cert_reqs"].name
        assert f"CERT_{ours['ssl_cert_reqs'].upper()}" == verify
