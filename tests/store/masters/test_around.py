"""What the masters share with other keys, and the store with the process around it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from onceguard.rules.errors import StoreUnavailable
from onceguard.rules.messages import partition
from onceguard.store.contract import Answer, Renewed
from onceguard.store.opening import open_store
from tests.harness.waiting import eventually
from tests.store.rig import KEY, PREFIX, call
from tests.store.ticking import tick
from tests.store.voting import (
    M1,
    M2,
    TIMEOUT,
    App,
    live_through,
)

if TYPE_CHECKING:
    from tests.harness.masters import Masters


def test_keys_of_users_are_not_taken_for_the_librarys(app: App, other: App) -> None:
    """They are chosen by users: whatever they end in, others' claims on them are seen."""
    ends = ["}:index", "}:fence", ":promise", "}:msg:m1", "}:past:x", " ", "ü" * 99, "{x}"]
    for number, end in enumerate(ends):
        key = f"key{end}".replace(" ", "%20")
        message, rival = call(f"m{number}", key=key), call(f"r{number}", key=key)
        app.reach(0, 1)
        assert app.rig.claim(message) is None
        other.reach(1, 2)
        refused = other.rig.claim(rival)
        assert refused is not None, key
        assert refused.holder.message_id == message.message_id
        app.reach()
        record = app.rig.run(message, "n")
        other.reach()
        conflict = other.rig.start(rival, "n")
        assert conflict.answer is Answer.CONFLICT
        assert conflict.held is not None
        assert conflict.held.holder.record() == record


@pytest.mark.parametrize("named", ["{}:turn", "{}:promise", "turn:{}", "lock:{}", "msg:{}"])
def test_a_key_that_is_named_like_anothers_promise_is_free(app: App, named: str) -> None:
    """No name that the library makes of one key may be that of another user's key."""
    keys = ("k" * length for length in range(1, 999))
    key = next(each for each in keys if partition(each) == partition(named.format(each)))
    for name in (key, named.format(key)):
        assert app.rig.claim(call(name, key=name)) is None
    for name in (key, named.format(key)):
        app.rig.run(call(name, key=name), "n")


def test_only_counters_stay_for_ever(masters: Masters, app: App) -> None:
    """DESIGN 7, on each of them: whatever looks, turns and repairs leave has an end."""
    app.rig.run(M1, "n1")
    masters.restart_empty(1)
    live_through(app)
    app.rig.claim(M2)
    app.rig.store.tick(tick(1))
    app.hold_question(2, to=(0,))  # it has been looked at, and hears no more
    app.rig.claim(call("m3", key="looked-at()"))
    app.lines[0].cut()
    app.let_go()
    for server in masters.servers:
        with server.client() as client:
            kept = {str(name) for name in client.scan_iter() if client.pttl(name) == -1}
        assert all(name.endswith("}:fence") for name in kept)


def test_connections_and_threads_do_not_pile_up(masters: Masters) -> None:
    """Each turn starts threads; they must end, and their connections be kept."""
    store = open_store(masters.urls, prefix=PREFIX, socket_timeout=TIMEOUT)
    threads = threading.active_count()
    for number in range(60):
        store.claim(call(f"m{number}", key=f"k{number}"), unique_for=60.0)
    eventually(lambda: threading.active_count() <= threads, "the threads ended")
    for server in masters.servers:
        assert int(server.ask("INFO", "clients")["connected_clients"]) < 15
    store.close()


def test_a_store_outlives_a_fork(app: App) -> None:
    """Celery's prefork: made and used before, used on both sides after."""
    live_through(app)
    child = os.fork()
    if child == 0:
        try:
            live_through(app, "child")
            os._exit(0)
        finally:
            os._exit(1)
    live_through(app)
    assert os.waitpid(child, 0)[1] == 0


def test_many_leases_are_renewed_at_once(masters: Masters, app: App) -> None:
    """A worker's renewal is one question to each master, however much runs."""
    message = replace(M1, key=KEY)
    record = app.rig.run(message, "n1")
    leases = [app.rig.lease(message, "n1", record)] * 1000
    masters.servers[0].flush()
    answers = app.rig.store.renew(leases)
    assert {answer for answer, _ in answers} == {Renewed.RENEWED}


LATE = """
import json, threading, sys, time
dumps = json.dumps
from onceguard.store.opening import open_store
from tests.store.rig import call
store = open_store({urls!r}, prefix={prefix!r}, socket_timeout=1.0)
assert json.dumps is dumps, "json.dumps was replaced"

def late():
    threading.main_thread().join()
    print(store.claim(call("m1"), unique_for=60.0), flush=True)

threading.Thread(target=late).start()
"""


def test_a_thread_may_publish_after_the_main_one_ended(masters: Masters) -> None:
    """Pottery's threads can't be started any more; its turn is not needed for that."""
    program = LATE.format(urls=masters.urls, prefix=PREFIX)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "None\n", done.stderr


BROKEN = """
import json
dumps = json.dumps
from onceguard.rules.errors import InvalidSettings
from onceguard.store.opening import open_store
try:
    open_store({urls!r}, prefix="p", socket_timeout=1.0)
except InvalidSettings as error:
    print("REDIS_URL" in str(error), json.dumps is dumps)
"""


@pytest.mark.parametrize("url", ["", "http://elsewhere"])
def test_an_environment_that_pottery_cannot_read_is_named(masters: Masters, url: str) -> None:
    """It reads $REDIS_URL when it is imported; json is left as it was all the same."""
    done = subprocess.run(
        [sys.executable, "-c", BROKEN.format(urls=masters.urls)],
        env=os.environ | {"REDIS_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "True True\n", done.stderr


def test_passwords_are_in_no_log_and_no_error(
    masters: Masters, caplog: pytest.LogCaptureFixture
) -> None:
    """Pottery logs what goes wrong on a logger of its own, with the URL in it."""
    for server in masters.servers:
        server.require("hunter2")
    urls = [url.replace("redis://", "redis://:hunter2@") for url in masters.urls]
    store = open_store(urls, prefix=PREFIX, socket_timeout=TIMEOUT)
    try:
        with caplog.at_level("DEBUG"):
            assert store.claim(M1, unique_for=60.0) is None
            masters.kill(0, 1)
            with pytest.raises(StoreUnavailable) as caught:
                store.claim(M1, unique_for=60.0)
    finally:
        store.close()
        masters.servers[2].require("")
        for server in masters.servers:  # others need them, too
            server.password = ""
    shown = f"{caught.value}{caught.value!r}{caught.value.__cause__!r}{store!r}"
    assert "hunter2" not in shown + caplog.text
    assert not [each for each in caplog.records if each.name == "pottery" and each.levelno > 20]
    assert json.dumps({}) == "{}"


def test_a_master_that_is_away_is_said_once_and_its_return_too(
    masters: Masters, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody would notice otherwise, until one too many is gone."""
    app.rig.claim(M1)
    masters.kill(1)
    for _ in range(3):
        app.rig.claim(M1)
        app.rig.store.holder(M1)
    masters.servers[1].start()
    app.forget_rests()
    for _ in range(3):
        app.rig.store.holder(M1)
    said = [each.message for each in caplog.records if each.levelname == "WARNING"]
    away, back = said
    assert "one of several, does not answer; while a majority does" in away
    assert back.endswith("one of several, answers again")
