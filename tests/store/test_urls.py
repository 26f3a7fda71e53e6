"""Each way in which Celery's users write a server leads Celery and the store to it."""

import ssl
from collections.abc import Callable, Iterator
from traceback import format_exception

import pytest
import redis

from onceguard.rules.errors import InvalidSettings, StoreUnavailable
from onceguard.store.bound import guard_of
from tests.harness.certificates import Authority, TlsServer
from tests.harness.redis_server import RedisServer, free_port
from tests.harness.sentinels import NAME, SentinelServer
from tests.store.forms import (
    BACKENDS,
    BROKERS,
    DATABASE,
    PASSWORD,
    USER,
    WRITTEN,
    Conf,
    app_of,
    guard_from,
    no_user,
    tcp,
    tls_in_the_url,
    tls_required,
    unix_socket,
)
from tests.store.rig import PREFIX, call

PIECES = ("hunter2", WRITTEN, "%5B%5D", "[]%")
"""What must not be seen of the password."""

Form = Callable[[TlsServer, Authority], Conf]


@pytest.fixture(scope="module")
def tls_server(authority: Authority) -> Iterator[TlsServer]:
    """A server over TCP, TLS and a unix socket, with a password and a user."""
    server = TlsServer(authority).start()
    with server.client() as admin:
        admin.acl_setuser(USER, enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"],
                          channels=["*"], categories=["+@all"])  # fmt: skip
    server.require(PASSWORD)
    yield server
    server.close()


@pytest.fixture
def dead_server(authority: Authority) -> TlsServer:
    """One that was never started."""
    server = TlsServer(authority)
    server.port = free_port()
    return server


FORMS = pytest.mark.parametrize("form", BROKERS)


def as_backend(conf: Conf) -> Conf:
    """The same for the result backend, with the broker on RabbitMQ."""
    names = {"broker_url": "result_backend", "broker_use_ssl": "redis_backend_use_ssl"}
    return {"broker_url": "amqp://", **{names[name]: conf[name] for name in conf}}


def claimed_in(server: RedisServer, database: int) -> bool:
    """Whether a claim lies in that database, and nowhere else."""
    with server.client(db=database) as client:
        there = bool(client.keys(f"once1:{{{PREFIX}:*"))
        everywhere = client.info("keyspace")
        client.flushall()
    return there and list(everywhere) == [f"db{database}"]


@FORMS
def test_a_broker_url_is_enough(
    tls_server: TlsServer, authority: Authority, form: Form
) -> None:
    """Celery gets in with it, and so does the store, in the same database."""
    app = app_of(form(tls_server, authority))
    with app.connection_for_write() as connection:
        assert connection.ensure_connection(max_retries=1).default_channel.client.ping()
    assert guard_of(app).store.claim(call("m1"), unique_for=5.0) is None
    assert claimed_in(tls_server, DATABASE)


@pytest.mark.parametrize("form", BACKENDS)
def test_a_result_backends_url_is_enough(
    tls_server: TlsServer, authority: Authority, form: Form
) -> None:
    """The same, where the broker is none that can hold locks."""
    app = app_of(as_backend(form(tls_server, authority)))
    assert app.backend.client.ping()
    assert guard_of(app).store.claim(call("m1"), unique_for=5.0) is None
    assert claimed_in(tls_server, DATABASE)


@pytest.mark.parametrize("form", [tcp, no_user, unix_socket, tls_in_the_url, tls_required])
def test_a_url_of_our_own_is_enough(
    tls_server: TlsServer, authority: Authority, form: Form
) -> None:
    """Whatever works as a broker works as once_url."""
    conf = {"once_url": form(tls_server, authority)["broker_url"], "broker_url": "memory://"}
    assert guard_from(conf).store.claim(call("m1"), unique_for=5.0) is None
    assert claimed_in(tls_server, DATABASE)


def test_options_of_our_own_are_enough(tls_server: TlsServer, authority: Authority) -> None:
    """Passwords and certificates may stand outside of the URL."""
    options = {
        "username": USER,
        "password": PASSWORD,
        "ssl_ca_certs": str(authority.ca),
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "client_name": "locks",
    }
    url = f"rediss://localhost:{tls_server.tls_port}/{DATABASE}"
    guard = guard_from({"once_url": url, "once_transport_options": options})
    assert guard.store.claim(call("m1"), unique_for=5.0) is None
    with tls_server.client() as admin:
        assert "locks" in {client["name"] for client in admin.client_list()}
    assert claimed_in(tls_server, DATABASE)


@FORMS
def test_what_a_dead_servers_error_shows_is_not_the_password(
    dead_server: TlsServer, authority: Authority, form: Form, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes to logs, to results and to whoever called the web server."""
    guard = guard_from(form(dead_server, authority))
    with pytest.raises(StoreUnavailable) as caught:
        guard.store.claim(call("m1"), unique_for=5.0)
    shown = "".join(format_exception(caught.value)) + repr(caught.value) + caplog.text
    shown += repr(guard.store) + repr(guard.settings) + repr(guard.address)
    assert not [piece for piece in PIECES if piece in shown]
    assert ":***@" in caught.value.server


def test_a_server_that_repeats_the_password_is_not_quoted(redis_binary: str) -> None:
    """Redis says "unknown command 'AUTH', with args beginning with: 'hunter2'"."""
    assert redis_binary
    server = RedisServer("--rename-command", "AUTH", "").start()
    url = f"redis://:{WRITTEN}@127.0.0.1:{server.port}/0?protocol=2"
    with pytest.raises(StoreUnavailable) as caught:
        guard_from({"once_url": url}).store.claim(call("m1"), unique_for=5.0)
    server.close()
    shown = "".join(format_exception(caught.value)) + repr(caught.value)
    assert "unknown command" in shown
    assert "'***'" in shown
    assert not [piece for piece in PIECES if piece in shown]


@pytest.mark.parametrize(
    ("host", "options", "says"),
    [
        ("localhost", {"ssl_cert_reqs": "required"}, "verify failed.*file with ssl_ca_certs"),
        ("localhost", {}, "verify failed.*file with ssl_ca_certs"),
        ("localhost", {"ssl_ca_certs": "/no/such/file"}, "No such file.*that ssl_ca_certs"),
    ],
)
def test_a_certificate_that_nobody_vouches_for_is_refused(
    tls_server: TlsServer, host: str, options: Conf, says: str
) -> None:
    """Whoever answers in the lock server's place could let everybody run at once."""
    url = f"rediss://:{WRITTEN}@{host}:{tls_server.tls_port}/0"
    guard = guard_from({"once_url": url, "once_transport_options": options})
    with pytest.raises(StoreUnavailable, match=says):
        guard.store.claim(call("m1"), unique_for=5.0)


def test_a_certificate_of_another_host_is_refused(
    tls_server: TlsServer, authority: Authority
) -> None:
    """It may be anybody's of whom the same authority knows."""
    url = f"rediss://:{WRITTEN}@127.1:{tls_server.tls_port}/0"  # not as the certificate has it
    options = {"ssl_ca_certs": str(authority.ca), "ssl_check_hostname": True}
    guard = guard_from({"once_url": url, "once_transport_options": options})
    with pytest.raises(StoreUnavailable, match=r"valid for '127\.1'.*ssl_check_hostname=False"):
        guard.store.claim(call("m1"), unique_for=5.0)


def test_a_client_certificate_is_shown_to_a_server_that_wants_one(
    redis_binary: str, authority: Authority
) -> None:
    """As managed Redis with mutual TLS has it."""
    assert redis_binary
    server = TlsServer(authority, clients="yes").start()
    mine = {"ssl_certfile": str(authority.cert), "ssl_keyfile": str(authority.key)}
    for options, works in ((mine, True), ({}, False)):
        conf = {
            "once_url": f"rediss://localhost:{server.tls_port}/0",
            "once_transport_options": {"ssl_ca_certs": str(authority.ca), **options},
        }
        try:
            claimed = guard_from(conf).store.claim(call("m1"), unique_for=5.0) is None
        except StoreUnavailable:
            claimed = False
        assert claimed is works
    server.close()


def test_sentinels_and_master_over_tls(redis_binary: str, authority: Authority) -> None:
    """Each has certificates of its own to be checked: sentinel_kwargs are the sentinels'."""
    assert redis_binary
    server = TlsServer(authority).start()
    port = free_port()
    words = authority.options(port)
    lines = [f"{name[2:]} {value}" for name, value in zip(words[::2], words[1::2], strict=True)]
    watch = f"sentinel monitor {NAME} 127.0.0.1 {server.tls_port} 1"
    sentinel = SentinelServer(*lines, "tls-replication yes", watch).start()
    tls = {"ssl_ca_certs": str(authority.ca), "ssl_cert_reqs": "required"}
    conf = {
        "broker_url": f"sentinel://localhost:{port}/{DATABASE}",
        "broker_transport_options": {
            "master_name": NAME,
            "sentinel_kwargs": {"ssl": True, **tls},
        },
        "broker_use_ssl": tls,
    }
    app = app_of(conf)
    with app.connection_for_write() as connection:
        assert connection.ensure_connection(max_retries=1).default_channel.client.ping()
    assert guard_of(app).store.claim(call("m1"), unique_for=5.0) is None
    assert claimed_in(server, DATABASE)
    sentinel.close()
    server.close()


def test_a_credential_provider_is_asked(tls_server: TlsServer) -> None:
    """Managed Redis hands out passwords that last for minutes; Celery takes a class's name."""
    name = f"{__name__}.{Provider.__name__}"
    url = f"redis://127.0.0.1:{tls_server.port}/{DATABASE}?credential_provider={name}"
    assert guard_from({"once_url": url}).store.claim(call("m1"), unique_for=5.0) is None
    assert claimed_in(tls_server, DATABASE)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("credential_provider=no.such.Provider", "No module named 'no'"),
        ("credential_provider=tests.store.forms.Nobody", "has no attribute 'Nobody'"),
    ],
)
def test_what_redis_py_cannot_do_is_an_invalid_setting(query: str, says: str) -> None:
    """Any other exception out of a receiver of worker_init would only be logged."""
    with pytest.raises(InvalidSettings, match=says):
        guard_from({"once_url": f"redis://h?{query}"}).store  # noqa: B018 - makes it


class Provider(redis.CredentialProvider):
    """Knows the password."""

    def get_credentials(self) -> tuple[str, str]:
        """User and password."""
        return USER, PASSWORD
