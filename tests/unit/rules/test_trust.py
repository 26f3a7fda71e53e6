"""What drivers say of certificates, by version, and what is made of it."""

import pytest

from onceguard.rules.trust import advised, distrusted

VERIFY = (
    "Error 1 connecting to h:6379. [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (
            f"{VERIFY}self-signed certificate in certificate chain (_ssl.c:1006).",
            "ssl_ca_certs",
        ),
        (f"{VERIFY}certificate has expired (_ssl.c:1006).", "in force"),
        (
            f"{VERIFY}IP address mismatch, certificate is not valid for '10.0.0.1'. (_ssl.c).",
            "cluster-announce-hostname",
        ),
        ("(1, '[SSL: X] tlsv13 alert certificate required (_ssl.c:2580)')", "ssl_certfile"),
        ("[SSL: SSLV3_ALERT_BAD_CERTIFICATE] sslv3 alert bad certificate", "ssl_certfile"),
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca", "ssl_certfile"),
    ],
)
def test_a_certificate_that_is_refused_is_told_with_the_way_out(said: str, advice: str) -> None:
    """The driver's words stay: they are what can be looked up."""
    assert distrusted(said)
    assert advised(said).startswith(f"{said.rstrip('.')} (")
    assert advice in advised(said)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (
            "Error 8 while writing to socket. EOF occurred in violation of protocol (_ssl.c).",
            "may want a certificate",
        ),
        (
            "[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] ssl/tls alert handshake failure",
            "may want a certificate",
        ),
        (
            "Error 2 connecting to h:6379. No such file or directory.",
            "a file that ssl_ca_certs",
        ),
    ],
)
def test_what_may_have_another_cause_keeps_no_worker_from_starting(
    said: str, advice: str
) -> None:
    """TLS 1.2, or the first to write, does not hear that a certificate is missing."""
    assert not distrusted(said)
    assert advice in advised(said)


@pytest.mark.parametrize(
    "said",
    [
        "Error 111 connecting to h:6379. Connection refused.",
        "Error 2 connecting to unix:/run/redis.sock. No such file or directory.",
        "Error 2 connecting to /run/redis:1. No such file or directory.",
        "Timeout connecting to server",
        "",
    ],
)
def test_what_has_nothing_to_do_with_certificates_is_left_alone(said: str) -> None:
    """A wrong hint costs more time than none."""
    assert advised(said) == said
    assert not distrusted(said)
