"""
Claims, put-off copies, dropped and forgotten messages; and what holds for all transitions.

Starts, renewals and ends have files of their own.
"""

from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot

from onceguard.rules.messages import PARTITIONS, partition
from onceguard.store import scripts
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import eventually
from tests.store.rig import COMPLETED_FOR, KEY, UNIQUE_FOR, Rig, call, open_rig
from tests.store.tour import tour

DAY = 86400.0
SCOPES = pytest.mark.parametrize("own_lease", [False, True], ids=["key", "message"])


def test_one_of_two_claims_is_refused_and_learns_who_holds_the_key(rig: Rig) -> None:
    """G1: the second publisher must be able to say whom it was refused for."""
    assert rig.claim(call("m1")) is None
    held = rig.claim(call("m2"))
    assert held is not None
    assert (held.holder.state, held.holder.message_id) == ("claim", "m1")
    assert (held.holder.task_id, held.holder.where) == ("task-of-m1", "-")
    assert UNIQUE_FOR - 5 < held.time_left <= UNIQUE_FOR
    assert 0 <= rig.now() - held.holder.since < 5


def test_a_claim_sent_again_is_no_duplicate_of_itself(rig: Rig) -> None:
    """FACTS, Locks 1: after a lost reply a publisher must not be refused by its own claim."""
    assert rig.claim(call("m1")) is None
    assert rig.claim(call("m1")) is None
    assert rig.held(call("m1")) == "claim m1"


def test_a_claim_is_refused_while_an_equal_call_runs(rig: Rig) -> None:
    """Scope until_executed lasts to the end of the run, not to its start."""
    rig.run(call("m1"), "n1")
    held = rig.claim(call("m2"))
    assert held is not None
    assert (held.holder.state, held.holder.nonce, held.holder.attempt) == ("lease", "n1", 1)


def test_claims_of_different_keys_do_not_meet(rig: Rig) -> None:
    """Keys share partitions; they must share nothing else."""
    keys = [f"task(user_id={number})" for number in range(2 * PARTITIONS)]
    assert all(rig.claim(call(f"m{key}", key=key)) is None for key in keys)


def test_a_claim_is_free_again_after_its_life(rig: Rig) -> None:
    """A call that was claimed and never sent must not block its key for ever."""
    rig.claim(call("m1"), unique_for=0.05)
    eventually(lambda: rig.claim(call("m2")) is None, "the first claim had ended", timeout=2)


def test_unclaim_frees_only_its_own_claim(rig: Rig) -> None:
    """G6: a publish that failed late must not free the next publisher's key."""
    rig.claim(call("m2"))
    rig.store.unclaim(call("m1"))
    assert rig.held(call("m2")) == "claim m2"
    rig.store.unclaim(call("m2"))
    assert rig.held(call("m2")) == ""
    assert rig.listed(call("m2")) == set()


def test_unclaim_leaves_a_lease_of_its_own_message_alone(rig: Rig) -> None:
    """A send that seemed to fail may have arrived: its run must keep the key."""
    rig.run(call("m1"), "n1")
    rig.store.unclaim(call("m1"))
    assert rig.held(call("m1")) == "lease m1"


def test_a_message_id_that_begins_like_another_owns_nothing_of_it(rig: Rig) -> None:
    """Owners are compared whole: m1 is not m1.r1, whose record begins with its letters."""
    rig.claim(call("m1.r1"))
    assert rig.claim(call("m1")) is not None
    rig.store.unclaim(call("m1"))
    rig.drop(call("m1"))
    assert rig.held(call("m1")) == "claim m1.r1"


def test_put_off_never_goes_back(rig: Rig) -> None:
    """Rule 1: a slow worker's old copy must not make the newest copy look superseded."""
    assert rig.put_off(call("m1"), 2) == 2
    assert rig.put_off(call("m1"), 1) == 2
    assert rig.put_off(call("m1"), 3) == 3
    assert rig.start(call("m1"), "n1").generation == 3


def test_put_off_keeps_the_starts_and_the_completion_of_a_message(rig: Rig) -> None:
    """A late put-off must neither reset the poison cap nor reopen a finished message."""
    rig.run(call("m1"), "n1")
    rig.put_off(call("m1"), 1)
    assert rig.record(call("m1")) == "open 1 1 n1"
    rig.finish(call("m1"), "n1")
    rig.put_off(call("m1"), 2)
    assert rig.record(call("m1")) == "done 1 2 n1"


def test_drop_settles_the_message_and_frees_its_claim(rig: Rig) -> None:
    """G5: a message revoked or expired before its start frees its key at once."""
    rig.claim(call("m1"))
    assert rig.drop(call("m1"))
    assert rig.held(call("m1")) == ""
    assert rig.listed(call("m1")) == set()
    assert rig.start(call("m1"), "n1").answer == "already_completed"


def test_drop_leaves_another_claim_and_any_lease_alone(rig: Rig) -> None:
    """A revoked duplicate delivery must not free the run of the first delivery."""
    rig.claim(call("m2"))
    assert not rig.drop(call("m1"))
    assert rig.held(call("m2")) == "claim m2"
    rig.run(call("m2"), "n2")
    assert not rig.drop(call("m2"))
    assert rig.held(call("m2")) == "lease m2"


def test_forget_shortens_the_memory_of_completed_messages_only(rig: Rig) -> None:
    """An open message's starts and generation are still asked for."""
    rig.run(call("m1"), "n1")
    rig.finish(call("m1"), "n1")
    rig.run(call("m2"), "n2")
    elsewhere = call("m3", key="another(1)")
    rig.drop(elsewhere)
    asked = [call("m1"), call("m2"), elsewhere, call("never")]
    assert rig.store.forget(asked, after=0.05) == 2
    eventually(
        lambda: rig.record(call("m1")) == rig.record(elsewhere) == "", "both were forgotten"
    )
    assert rig.record(call("m2")) == "open 1 0 n2"
    assert rig.store.forget([], after=0.05) == 0


def test_forget_never_lengthens_a_memory(rig: Rig) -> None:
    """Called twice, in a batch that was tried again, it must still come to an end."""
    rig.drop(call("m1"))
    rig.store.forget([call("m1")], after=5.0)
    rig.store.forget([call("m1")], after=50.0)
    assert rig.memory_of(call("m1")) <= 5


def test_forget_keeps_a_message_that_was_put_off(rig: Rig) -> None:
    """Its copy is still to come, and would run what is finished again (G4)."""
    rig.run(call("m1"), "n1")
    rig.put_off(call("m1"), 1)
    rig.finish(call("m1"), "n1")
    assert rig.store.forget([call("m1")], after=0.05) == 0
    assert rig.memory_of(call("m1")) > COMPLETED_FOR / 2


def test_forget_keeps_a_put_off_message_whose_retry_has_started(rig: Rig) -> None:
    """
    The start of a retry settles its parent; it must not hide that a copy is to come.

    m1 runs, a second delivery of it is put off, m1 retries, its retry starts, m1's
    worker forgets m1, the copy comes back: m1 would run again (G4).
    """
    retry = call("m1.r1", task_id="task-of-m1")
    rig.run(call("m1"), "n1")
    rig.put_off(call("m1"), 1)
    rig.finish(call("m1"), "n1", retry="m1.r1")
    rig.start(retry, "n2", parent_id="m1")
    assert rig.store.forget([call("m1")], after=0.05) == 0
    assert rig.memory_of(call("m1")) > COMPLETED_FOR / 2


@SCOPES
def test_holder_names_who_runs(rig: Rig, own_lease: bool) -> None:
    """`explain` and the worker's logs read it."""
    mine = call("m1", own_lease=own_lease)
    assert rig.store.holder(mine) is None
    rig.run(mine, "n1")
    held = rig.store.holder(mine)
    assert held is not None
    assert (held.holder.message_id, held.holder.nonce) == ("m1", "n1")
    assert 25 < held.time_left <= 30


@SCOPES
def test_after_every_transition_only_the_counter_would_stay_for_ever(
    rig: Rig, own_lease: bool
) -> None:
    """Memory must not grow with what was ever locked (DESIGN 7)."""
    for name, step in tour(rig, own_lease=own_lease).items():
        step()
        left = {key for key in rig.without_ttl() if not key.endswith(":fence")}
        assert left == set(), f"after: {name}"


@SCOPES
def test_after_every_transition_the_index_lists_what_is_held(rig: Rig, own_lease: bool) -> None:
    """`celery once ls` reads the index alone; a hold that is missing there is invisible."""
    for name, step in tour(rig, own_lease=own_lease).items():
        step()
        for key in rig.raw.scan_iter(match="*:lock:*"):
            kind, _ = str(rig.raw.get(key)).split(" ", 1)
            key_itself = str(key).split(":lock:", 1)[1]
            listed = key_itself if kind == "claim" else f"{key_itself} lease"
            assert listed in rig.listed(call("m1")), f"after: {name}"


def test_the_index_still_lists_a_claim_beside_which_a_message_of_its_own_starts(
    rig: Rig,
) -> None:
    """Scope until_executing: m2 is queued while m1 runs again; m2 must not go invisible."""
    rig.claim(call("m2", own_lease=True))
    rig.start(call("m1", own_lease=True), "n1")
    assert rig.held(call("m2")) == "claim m2"
    assert KEY in rig.listed(call("m2"))


def test_the_index_outlives_what_it_lists(rig: Rig) -> None:
    """An index that ended before a long hold would hide it; nor may a short one shorten it."""
    mine = call("m1")
    others = (f"task({number})" for number in range(1000))
    neighbours = [key for key in others if partition(key) == partition(KEY)]
    rig.claim(call("m2", key=neighbours[0]), unique_for=7 * DAY)
    rig.start(mine, "n1", lease_ttl=10.0)
    assert rig.raw.pttl(rig.names(mine).index) > 7 * DAY * 1000
    rig.renew(mine, "n1", "", lease_ttl=9 * DAY)
    rig.run(call("m3", key=neighbours[1]), "n3")
    assert rig.raw.pttl(rig.names(mine).index) > 9 * DAY * 1000


@SCOPES
def test_all_keys_of_a_lock_share_a_slot(rig: Rig, own_lease: bool) -> None:
    """On a Cluster a script may only touch one slot (DESIGN 7)."""
    for step in tour(rig, own_lease=own_lease).values():
        step()
        slots = {key_slot(str(key).encode()) for key in rig.raw.scan_iter(count=1000)}
        assert len(slots) <= 1


@SCOPES
def test_scripts_touch_no_key_that_was_not_passed_to_them(
    redis_server: RedisServer, rig: Rig, own_lease: bool
) -> None:
    """A Cluster routes by the declared keys; the server itself does not check the rest."""
    with redis_server.client() as watcher, watcher.monitor() as monitor:
        steps = tour(rig, own_lease=own_lease)
        for step in steps.values():
            step()
        rig.raw.echo("the end")
        declared: set[str] = set()
        seen = 0
        for command in _until_the_end(monitor):
            words = command["command"].split(" ")
            if words[0] in {"EVALSHA", "EVAL"}:
                declared = {word for word in words if word.startswith("once1:")}
            elif command["client_type"] == "lua" and words[0] != "TIME":
                seen += 1
                assert words[1] in declared, command["command"]
    assert seen > len(steps)


def _until_the_end(monitor: "redis.client.Monitor") -> Iterator[dict[str, str]]:
    while True:
        command = monitor.next_command()  # type: ignore[no-untyped-call]
        if "the end" in command["command"]:
            return
        yield command


@SCOPES
def test_every_script_is_legal_in_cluster_mode(redis_binary: str, own_lease: bool) -> None:
    """Sentinel and Cluster follow; the scripts must not have to change for them."""
    assert redis_binary
    server = RedisServer("--cluster-enabled", "yes").start()
    try:
        rig = open_rig(server)
        rig.command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        eventually(
            lambda: "ok" in str(rig.command("CLUSTER INFO")["cluster_state"]),
            "the cluster owned all slots",
        )
        for step in tour(rig, own_lease=own_lease).values():
            step()
        with pytest.raises(redis.ResponseError, match="slot"):
            rig.raw.eval("return 1", 2, "{a}", "{b}")
    finally:
        server.close()


def test_the_tour_calls_every_script(rig: Rig) -> None:
    """The checks above are only as good as the tour: a script it leaves out is unchecked."""
    lua = {path.stem: path for path in Path(scripts.__file__).parent.glob("lua/*.lua")}
    for of_several_masters in ("taken", "voted"):
        del lua[of_several_masters]
    rig.raw.script_flush()
    for step in tour(rig, own_lease=False).values():
        step()
    digests = [sha1(path.read_bytes()).hexdigest() for path in lua.values()]  # noqa: S324
    known = rig.raw.script_exists(*digests)
    assert [name for name, there in zip(lua, known, strict=True) if not there] == []
