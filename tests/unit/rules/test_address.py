"""URLs and options of lock servers, as Celery's and redis-py's users write them."""

import ssl
from typing import Any
from urllib.parse import quote

import pytest

from onceguard.rules.address import Address, Written, check_options, read_address
from onceguard.rules.checks import ProblemError
from onceguard.rules.urls import redact

CELERYS = Written(url="broker_url", options="broker_transport_options", strict=False)
ODD = "p@:/?#[]%+ &=;ü\"'{}"


def refused(url: str, options: dict[str, Any] | None = None) -> str:
    with pytest.raises(ProblemError) as caught:
        read_address(url, options)
    (problem,) = caught.value.args
    return str(problem)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://", ("localhost", 6379)),
        ("redis://h", ("h", 6379)),
        ("redis://h:7/1", ("h", 7)),
        ("REDISS://h", ("h", 6379)),
        ("redis://user:p@h:7", ("h", 7)),
        ("redis://[::1]:7/0", ("::1", 7)),
        ("sentinel://s", ("s", 26379)),
    ],
)
def test_the_place_is_read_with_the_servers_default_port(
    url: str, place: tuple[str, int]
) -> None:
    """Sentinels listen elsewhere, and nobody writes that down."""
    options = {"master_name": "main"} if url.startswith("sentinel") else {}
    assert read_address(url, options).places == (place,)


@pytest.mark.parametrize(
    ("url", "path", "database"),
    [
        ("redis+socket:///run/r.sock", "/run/r.sock", 0),
        ("socket:///run/r.sock?virtual_host=/3", "/run/r.sock", 3),
        ("unix:///run/r.sock?db=3", "/run/r.sock", 3),
        ("redis+socket:///run/a%20b", "/run/a b", 0),
    ],
)
def test_unix_sockets_are_read_in_each_spelling(url: str, path: str, database: int) -> None:
    """Celery's, what Celery makes of it, and redis-py's."""
    address = read_address(url)
    assert address.places == ()
    assert address.login == {"unix_socket_path": path, "db": database}


@pytest.mark.parametrize("form", ["redis://{}h:7/2", "unix://{}/run/r.sock?db=2"])
@pytest.mark.parametrize("password", ["plain", ODD])
@pytest.mark.parametrize("user", ["", "app"])
def test_user_and_password_are_read_percent_decoded(
    form: str, user: str, password: str
) -> None:
    """A user without a password, and a password without a user, are written with a colon."""
    login = read_address(form.format(f"{user}:{quote(password, safe='')}@")).login
    assert login["password"] == password
    assert login.get("username", "") == user
    assert login["db"] == 2


@pytest.mark.parametrize("characters", ["@", "+", "%", "!$*()", "ü", ":"])
def test_what_celery_reads_without_encoding_is_read(characters: str) -> None:
    """As urllib reads it, which Celery uses."""
    assert read_address(f"redis://:a{characters}z@h/0").login["password"] == f"a{characters}z"


@pytest.mark.parametrize("characters", ["/", "#", "?", "[", "]", "/1@", "12/", "12?", "℀"])
def test_what_must_be_encoded_is_refused_without_showing_it(characters: str) -> None:
    """What urllib says is "Port could not be cast", with the password's first half."""
    problem = refused(f"redis://:{characters}ecret@h/0")
    assert "percent-encoded" in problem
    assert "ecret" not in problem


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *[(f"?ssl_cert_reqs={word}", "none") for word in ("CERT_NONE", "none", "NONE")],
        *[(f"?ssl_cert_reqs={word}", "required") for word in ("CERT_REQUIRED", "required")],
        *[(f"?ssl_cert_reqs={word}", "optional") for word in ("CERT_OPTIONAL", "optional")],
        ({"ssl_cert_reqs": ssl.CERT_NONE}, "none"),
        ({"ssl_cert_reqs": ssl.CERT_OPTIONAL}, "optional"),
        ({"ssl_cert_reqs": ssl.CERT_REQUIRED}, "required"),
        ({"ssl_cert_reqs": "CERT_REQUIRED"}, "required"),
        ({"ssl_cert_reqs": 2}, "required"),
    ],
)
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_certificate_checks_are_read_as_celery_writes_them(
    scheme: str, written: Any, meant: str
) -> None:
    """FACTS of redis-py: it wants ``none``, where Celery has CERT_NONE or the constant."""
    query, options = (written, {}) if isinstance(written, str) else ("", written)
    login = read_address(f"{scheme}://h/1{query}", options).login
    assert (login["ssl"], login["ssl_cert_reqs"], login["db"]) == (True, meant, 1)


def test_certificates_are_read_from_the_url_first() -> None:
    """Paths are percent-encoded there; in a dict they are not."""
    url = "rediss://h?ssl_ca_certs=%2Fetc%2Fca.pem&ssl_certfile=/c.pem&ssl_check_hostname=false"
    login = read_address(url, {"ssl_ca_certs": "/x%2F", "ssl_keyfile": "/k%2F"}).login
    assert login["ssl_ca_certs"] == "/etc/ca.pem"
    assert login["ssl_certfile"] == "/c.pem"
    assert login["ssl_keyfile"] == "/k%2F"
    assert login["ssl_check_hostname"] is False


def test_nothing_said_about_certificates_leaves_them_to_redis_py() -> None:
    """Which verifies them; and without TLS there is nothing to verify."""
    assert read_address("rediss://h").login == {"ssl": True, "db": 0}
    assert read_address("redis://h", {"ssl": False, "ssl_ca_certs": "/c"}).login == {"db": 0}
    assert "ssl" not in read_address("unix:///r", {"ssl_ca_certs": "/c"}).login


def test_sentinels_are_read_with_what_the_first_of_them_says() -> None:
    """So does Celery; the password is the master's, that of the sentinels is an option."""
    url = "sentinel://:one@a:1/3;sentinel://:two@b;sentinel://c:2/4"
    options = {
        "master_name": "main",
        "min_other_sentinels": 1,
        "sentinel_kwargs": {"password": "theirs", "ssl": True, "ssl_cert_reqs": ssl.CERT_NONE},
    }
    address = read_address(url, options)
    assert address.places == (("a", 1), ("b", 26379), ("c", 2))
    assert address.login == {"password": "one", "db": 3}
    assert (address.master_name, address.min_other_sentinels) == ("main", 1)
    assert address.sentinel_login == {
        "password": "theirs",
        "ssl": True,
        "ssl_cert_reqs": "none",
    }


def test_a_database_behind_the_last_sentinel_counts_if_no_other_has_one() -> None:
    """The documentation of kombu writes it there."""
    assert read_address("sentinel://a;sentinel://b/2", {"master_name": "x"}).login["db"] == 2


@pytest.mark.parametrize("name", [None, "", 7])
def test_a_missing_master_name_says_where_to_write_it(name: Any) -> None:
    """What kombu says is "'master_name' transport option must be specified", and not where."""
    problem = refused("sentinel://:secret@a", {"master_name": name})
    assert "once_transport_options={'master_name': 'mymaster'}" in problem
    assert "secret" not in problem
    with pytest.raises(ProblemError, match=r"broker_transport_options=\{'master_name'"):
        read_address("sentinel://a", {}, CELERYS)


def test_a_master_name_without_sentinels_is_refused() -> None:
    """It is easily written redis://, with the sentinel's host and port."""
    problem = refused("redis://:secret@a:26379", {"master_name": "main"})
    assert "does not start with 'sentinel://'" in problem
    assert "secret" not in problem


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://:secret@h/abc", "the database must be a number"),
        ("redis://h/-1", "the database must be a number"),
        ("redis://h:0", "can't be read"),
        ("redis://h:99999", "can't be read"),
        ("unix://relative", "can't be read"),
        ("redis://h?ssl_cert_req=none", "Did you mean 'ssl_cert_reqs'?"),
        ("redis://h?pasword=secret", "Did you mean 'password'?"),
        ("redis://h?protocol=x", "must be a whole number"),
        ("rediss://h?ssl_cert_reqs=maybe", "must be 'none', 'optional' or 'required'"),
    ],
)
def test_a_url_that_means_nothing_is_refused(url: str, says: str) -> None:
    """Rather than led to another database, or to no certificate check."""
    problem = refused(url)
    assert says in problem
    assert "secret" not in problem


def test_celerys_own_urls_may_say_what_is_for_others() -> None:
    """Celery hands the query on to the transport, of whatever kind."""
    assert read_address("redis://h?fancy=1", {}, CELERYS).login == {"db": 0}


def test_time_limits_in_a_url_are_left_out() -> None:
    """The broker's URL is the default, with the broker's time-outs in it (G12)."""
    url = "redis://h?socket_timeout=60&socket_connect_timeout=60&retry_on_timeout=1"
    assert read_address(url).login == {"db": 0}


def test_a_credential_provider_takes_the_place_of_a_password() -> None:
    """redis-py refuses both together."""
    login = read_address("redis://:old@h?credential_provider=a.B").login
    assert login == {"credential_provider": "a.B", "db": 0}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"master_nam": "x"}, "'master_nam' is not an option of once_transport_options. Did"),
        (
            {"sentinel_kwargs": {"pasword": "x"}},
            "'pasword' is not an option of sentinel_kwargs",
        ),
        ({"socket_timeout": 5}, "Set once_socket_timeout."),
        ({"visibility_timeout": 5}, "'visibility_timeout' is not an option"),
        ({"min_other_sentinels": "1"}, "must be a whole number"),
        ({"sentinel_kwargs": "x"}, "must be a dict"),
        ("master", "once_transport_options must be a dict, got str"),
        ([("master_name", "x")], "must be a dict, got list"),
    ],
)
def test_wrong_options_are_refused(options: Any, says: str) -> None:
    """What has no effect would be taken for done."""
    with pytest.raises(ProblemError) as caught:
        check_options("once_transport_options", options)
    assert says in " ".join(caught.value.args)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@h",
        "redis://h?password=se@cret&db=1",
        "redis://h:1/0?password=se;cret",
        "unix:///r.sock?username=u&password=sec;ret",
        "rediss://h?ssl_password=secret",
        "redis://:secret",
        "redis://:se;b://cret@h",
        "redis://u:se?password=cret@h",
        "sentinel://:secret@a:1;sentinel://u:secret@b",
    ],
)
def test_no_piece_of_a_password_is_shown(url: str) -> None:
    """Rather too little of a URL than a piece of a password."""
    shown = redact(url)
    assert "***" in shown
    assert not any(piece in shown for piece in ("se@", "se;", "sec", "cret", "ret", "se?"))


def test_an_address_shows_no_passwords_and_hides_those_in_others_words() -> None:
    """A server without AUTH answers: unknown command, with the arguments that it was given."""
    address = read_address(
        "sentinel://:first%40one@a",
        {
            "master_name": "m",
            "sentinel_kwargs": {"password": "second"},
            "ssl_password": "third",
        },
    )
    assert isinstance(address, Address)
    shown = repr(address) + address.shown
    assert not any(word in shown for word in ("first", "second", "third"))
    said = "unknown command 'AUTH', with args: 'first@one', second"
    assert address.hide(said) == "unknown command 'AUTH', with args: '***', ***"
