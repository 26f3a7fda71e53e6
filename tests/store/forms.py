"""The forms in which Celery's users write one server, as settings of a broker."""

import ssl
from typing import Any
from urllib.parse import quote

from celery import Celery

from onceguard.store.bound import Guard, guard_of
from tests.harness.certificates import Authority, TlsServer

USER, PASSWORD = "app", "hunter2@:/?#[]%+ &=;ü'"
WRITTEN = quote(PASSWORD, safe="")
DATABASE = 2

Conf = dict[str, Any]


def app_of(conf: Conf) -> Celery:
    app = Celery(set_as_current=False, fixups=[])
    app.conf.update(conf, once_socket_timeout=1.0)
    return app


def guard_from(conf: Conf) -> Guard:
    return guard_of(app_of(conf))


def tcp(server: TlsServer, _: Authority) -> Conf:
    return {"broker_url": f"redis://app:{WRITTEN}@127.0.0.1:{server.port}/{DATABASE}"}


def no_user(server: TlsServer, _: Authority) -> Conf:
    return {"broker_url": f"redis://:{WRITTEN}@localhost:{server.port}/{DATABASE}"}


def unix_socket(server: TlsServer, _: Authority) -> Conf:
    path = f"{server.socket}?virtual_host={DATABASE}"
    return {"broker_url": f"redis+socket://app:{WRITTEN}@{path}"}


def tls_in_the_url(server: TlsServer, authority: Authority) -> Conf:
    options = f"ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={quote(str(authority.ca), safe='')}"
    return {"broker_url": f"rediss://:{WRITTEN}@localhost:{server.tls_port}/2?{options}"}


def tls_required(server: TlsServer, authority: Authority) -> Conf:
    options = f"ssl_cert_reqs=required&ssl_ca_certs={authority.ca}&ssl_check_hostname=true"
    return {"broker_url": f"rediss://app:{WRITTEN}@127.0.0.1:{server.tls_port}/2?{options}"}


def tls_unverified(server: TlsServer, _: Authority) -> Conf:
    url = f"rediss://:{WRITTEN}@localhost:{server.tls_port}/2?ssl_cert_reqs=CERT_NONE"
    return {"broker_url": url}


def tls_without_a_word(server: TlsServer, _: Authority) -> Conf:
    return {"broker_url": f"rediss://:{WRITTEN}@localhost:{server.tls_port}/2"}


def tls_in_a_dict(server: TlsServer, authority: Authority) -> Conf:
    return {
        "broker_url": f"rediss://:{WRITTEN}@localhost:{server.tls_port}/2",
        "broker_use_ssl": {
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
            "ssl_ca_certs": str(authority.ca),
            "ssl_certfile": str(authority.cert),
            "ssl_keyfile": str(authority.key),
        },
    }


def tls_by_a_dict(server: TlsServer, authority: Authority) -> Conf:
    conf = tls_in_a_dict(server, authority)
    return {**conf, "broker_url": conf["broker_url"].replace("rediss", "redis")}


BACKENDS = [
    tcp,
    no_user,
    unix_socket,
    tls_in_the_url,
    tls_required,
    tls_unverified,
    tls_in_a_dict,
]
"""Forms that every Celery takes for a result backend, too."""

BROKERS = [*BACKENDS, tls_without_a_word, tls_by_a_dict]
