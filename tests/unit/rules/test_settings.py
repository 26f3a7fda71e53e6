"""Settings: once_* in celeryconfig, celery-once's ONCE, and the server for locks."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from onceguard.rules.choices import OnBeatStoreUnavailable, OverlapPolicy
from onceguard.rules.errors import InvalidSettings
from onceguard.rules.settings import Settings, read
from onceguard.rules.urls import redact

URL = "redis://:secret@host:6379/0"


def read_from(config: dict[str, Any]) -> Settings:
    return read(config.get, config)


def refused(config: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(InvalidSettings) as caught:
        read_from(config)
    return caught.value.problems


def test_nothing_set_means_the_documented_defaults() -> None:
    """The table in the reference is a promise."""
    assert read_from({}) == Settings(
        url=None,
        prefix="once",
        defaults={},
        transport_options=None,
        socket_timeout=1.0,
        wait_replicas=0,
        keep_visible=True,
        beat_ticks=True,
        beat_on_store_unavailable=OnBeatStoreUnavailable.SEND,
        enabled=True,
        history=0,
    )


def test_every_setting_is_read() -> None:
    """A setting that is accepted and then forgotten is worse than none."""
    config = {
        "once_url": URL,
        "once_prefix": "shop",
        "once_defaults": {"lease_ttl": 5, "graceful": True, "overlap_policy": "buffer_one"},
        "once_transport_options": {"master_name": "main"},
        "once_socket_timeout": 0.25,
        "once_wait_replicas": 1,
        "once_keep_visible": False,
        "once_beat_ticks": False,
        "once_beat_on_store_unavailable": "skip",
        "once_enabled": False,
        "once_history": 20,
    }
    assert read_from(config) == Settings(
        url=URL,
        prefix="shop",
        defaults={
            "lease_ttl": 5.0,
            "on_conflict": "skip",
            "overlap_policy": OverlapPolicy.BUFFER_ONE,
        },
        transport_options={"master_name": "main"},
        socket_timeout=0.25,
        wait_replicas=1,
        keep_visible=False,
        beat_ticks=False,
        beat_on_store_unavailable=OnBeatStoreUnavailable.SKIP,
        enabled=False,
        history=20,
    )


def test_settings_are_read_from_a_real_configuration() -> None:
    """Celery keeps names that it does not know, and finds them by `get`."""
    app = Celery(set_as_current=False)
    app.conf.update(once_url=URL, once_defaults={"lease_ttl": 5})
    settings = read(app.conf.get, app.conf)
    assert (settings.url, settings.defaults) == (URL, {"lease_ttl": 5.0})


def test_settings_are_read_through_a_namespace() -> None:
    """Django projects write CELERY_ONCE_URL; the caller passes names without CELERY_."""
    app = Celery(set_as_current=False)
    app.config_from_object(
        {"CELERY_ONCE_URL": URL, "CELERY_ONCE_ENABLED": False}, namespace="CELERY"
    )
    settings = read(app.conf.get, ["ONCE_URL", "ONCE_ENABLED"])
    assert (settings.url, settings.enabled) == (URL, False)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"once_ulr": URL}, "'once_ulr' is not a setting. Did you mean 'once_url'?"),
        ({"ONCE_ULR": URL}, "'ONCE_ULR' is not a setting. Did you mean 'once_url'?"),
        ({"once_zzz": 1}, "'once_zzz' is not a setting."),
        ({"ONCE_URL": URL}, "'ONCE_URL' is not read"),
        ({"once_url": 7}, "once_url must be a string, got int"),
        ({"once_url": "host:6379"}, "must start with 'redis://'"),
        ({"once_url": "amqp://u:secret@host"}, "got 'amqp://u:***@host'"),
        ({"once_url": []}, "must not be an empty list"),
        ({"once_url": ["redis://a", 7]}, "once_url must be a string, got int"),
        ({"once_url": ["redis://a", "amqp://u:secret@b"]}, "got 'amqp://u:***@b'"),
        ({"once_url": ["sentinel://a", "redis+cluster://b"]}, "must be one URL, or those"),
        ({"once_url": "redis://a;redis://b"}, "must be one URL"),
        (
            {"once_url": "sentinel://a;redis://:secret@b"},
            "must be one URL, or those of several",
        ),
        ({"once_wait_replicas": -1}, "once_wait_replicas must be a whole number"),
        ({"once_wait_replicas": True}, "once_wait_replicas must be a whole number"),
        ({"once_prefix": ""}, "once_prefix must be 1 to 64"),
        ({"once_prefix": "a{b"}, "once_prefix"),
        ({"once_prefix": "a b"}, "once_prefix"),
        ({"once_prefix": 7}, "once_prefix"),
        ({"once_socket_timeout": 0}, "once_socket_timeout must be at least"),
        ({"once_socket_timeout": "1"}, "must be a number of seconds"),
        ({"once_keep_visible": "0"}, "once_keep_visible must be True or False, got '0'"),
        ({"once_beat_ticks": 1}, "once_beat_ticks must be True or False"),
        ({"once_beat_on_store_unavailable": "run"}, "must be 'send' or 'skip', got 'run'"),
        ({"once_beat_on_store_unavailable": True}, "must be 'send' or 'skip', got True"),
        ({"once_beat_on_store_unavailable": "sent"}, "Did you mean 'send'?"),
        ({"once_on_store_unavailable": "run"}, "is not a setting. Did you mean"),
        ({"once_enabled": "no"}, "once_enabled must be True or False"),
        ({"once_history": -1}, "once_history must be a whole number"),
        ({"once_defaults": {"lease_tll": 5}}, "once_defaults: 'lease_tll' is not an option"),
        ({"once_defaults": {"keys": ["a"]}}, "once_defaults: keys belongs to a task"),
        ({"once_defaults": "skip"}, "once_defaults: it must be a dict"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_rule(config: dict[str, Any], says: str) -> None:
    """Celery itself keeps unknown names without a word, and converts nothing."""
    (problem,) = refused(config)
    assert says in problem
    assert "secret" not in problem


def test_all_problems_are_reported_together() -> None:
    """Those of the defaults too, each on its line."""
    problems = refused(
        {"once_ulr": 1, "once_history": -1, "once_defaults": {"limit": 2, "lease_ttl": 0}}
    )
    assert len(problems) == 4


def test_settings_of_others_are_left_alone() -> None:
    """Only once_* is ours."""
    assert read_from({"once": None, "oncelike": 1, "broker_url": "x"}) == Settings()


OLD = {
    "backend": "celery_once.backends.Redis",
    "settings": {"url": URL, "default_timeout": 600, "blocking_timeout": 5},
}


def test_celery_onces_configuration_supplies_url_and_timeout() -> None:
    """A project moves by changing its import."""
    settings = read_from({"ONCE": OLD})
    assert settings.url == URL
    assert settings.defaults == {"unique_for": 600.0}


def test_celery_onces_configuration_is_read_through_a_namespace() -> None:
    """Django projects write CELERY_ONCE, which Celery finds as `ONCE`."""
    app = Celery(set_as_current=False)
    app.config_from_object({"CELERY_ONCE": OLD}, namespace="CELERY")
    assert read(app.conf.get, ["ONCE"]).url == URL


def test_our_settings_win_over_celery_onces() -> None:
    """Both may stand side by side while a project moves."""
    new = {"once_url": "redis://new", "once_defaults": {"unique_for": 60}}
    settings = read_from({"ONCE": OLD, **new})
    assert settings.url == "redis://new"
    assert settings.defaults == {"unique_for": 60.0}


def test_celery_onces_url_is_not_even_checked_beside_ours() -> None:
    """It is for celery-once alone then, which can do with other servers."""
    settings = read_from({"ONCE": {"settings": {"url": "file:///tmp"}}, "once_url": URL})
    assert settings.url == URL


@pytest.mark.parametrize(
    ("old", "says"),
    [
        ("redis://", "ONCE must be a dict"),
        ({"settings": "x"}, "ONCE must be a dict"),
        ({"backend": "celery_once.backends.File"}, "locks are kept on Redis only"),
        ({"settings": {"blocking": True}}, "blocking makes a publish wait"),
        ({"settings": {"url": "file:///tmp"}}, "must start with"),
        ({"settings": {"default_timeout": "1h"}}, "default_timeout of ONCE must be a number"),
    ],
)
def test_what_celery_once_could_and_we_cannot_is_refused(old: Any, says: str) -> None:
    """A project that relies on it has to know before it runs."""
    (problem,) = refused({"ONCE": old})
    assert says in problem


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:secret@host/0", "redis://:***@host/0"),
        ("rediss://user:secret@host", "rediss://user:***@host"),
        ("redis://:sec/r#e?t@secret@host/0", "redis://:***@host/0"),
        ("redis://secret@host", "redis://***@host"),
        ("redis://host/0?password=secret&db=1", "redis://host/0?password=***&db=1"),
        ("redis://h?sentinel_password=secret", "redis://h?sentinel_password=***"),
        ("sentinel://:secret@a;sentinel://:secret@b", "sentinel://:***@a;sentinel://:***@b"),
        ("user:secret@host", "user:***@host"),
        ("host:6379", "host:6379"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    """Errors and logs go to places where passwords must not."""
    assert redact(url) == shown
