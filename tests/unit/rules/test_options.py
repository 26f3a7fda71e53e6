"""Options: what is accepted, what is refused, and with which words."""

from __future__ import annotations

import inspect
import pickle
from datetime import timedelta
from typing import Any

import pytest
from kombu.serialization import dumps, loads

from onceguard.rules.errors import InvalidOptions
from onceguard.rules.options import (
    Once,
    OnConflict,
    OnRunConflict,
    OnStoreUnavailable,
    OverlapPolicy,
    Scope,
    check_defaults,
    check_signature,
    override,
    parse,
)


def refused(value: object) -> tuple[str, ...]:
    with pytest.raises(InvalidOptions) as caught:
        parse(value, owner="tasks.sync")
    assert caught.value.owner == "tasks.sync"
    return caught.value.problems


def sent(header: object) -> object:
    content_type, encoding, body = dumps(header, "json")  # type: ignore[no-untyped-call]
    return loads(body, content_type, encoding, accept=[content_type])  # type: ignore[no-untyped-call]


def test_true_means_the_documented_defaults() -> None:
    """The table in the reference is a promise."""
    once = parse(True, owner="tasks.sync")
    assert once == Once()
    assert (once.keys, once.key, once.limit, once.completed_for) == (None, None, 1, None)
    assert (once.scope, once.on_conflict) == (Scope.UNTIL_EXECUTED, OnConflict.RAISE)
    assert once.on_run_conflict is OnRunConflict.SKIP
    assert (once.unique_for, once.lease_ttl, once.max_deliveries) == (3600.0, 30.0, 5)
    assert (once.lock_at_least_for, once.lock_at_most_for) == (0.0, None)
    assert once.on_store_unavailable is OnStoreUnavailable.FAIL


def test_three_ways_to_write_options_are_one() -> None:
    """A dict in configuration, keywords in code, and an object shared by tasks."""
    written = {"keys": ["user_id"], "on_conflict": "skip", "lease_ttl": timedelta(seconds=5)}
    from_dict = parse(written, owner="tasks.sync")
    assert from_dict == Once(keys=["user_id"], on_conflict="skip", lease_ttl=5)
    assert from_dict == parse(from_dict, owner="tasks.other")
    assert from_dict == Once(keys=("user_id",), on_conflict=OnConflict.SKIP, lease_ttl=5.0)
    assert from_dict.keys == ("user_id",)
    assert from_dict.lease_ttl == 5.0
    assert isinstance(from_dict.lease_ttl, float)


def test_options_cannot_be_changed_afterwards() -> None:
    """They are shared by all calls of a task, in all threads."""
    with pytest.raises(AttributeError):
        Once().lease_ttl = 5  # type: ignore[misc]


def test_options_survive_pickle() -> None:
    """A spawned pool process gets its tasks by pickle."""
    once = Once(keys=["a"], on_conflict="skip")
    again = pickle.loads(pickle.dumps(once))  # noqa: S301
    assert again == once
    assert again.given == once.given


def test_all_problems_are_reported_together() -> None:
    """The error of the style guide, word by word."""
    with pytest.raises(InvalidOptions) as caught:
        parse({"on_conflct": "skip", "lease_ttl": 0.5}, owner="tasks.sync_user")
    assert str(caught.value) == (
        "tasks.sync_user has invalid once options:\n"
        "  - 'on_conflct' is not an option. Did you mean 'on_conflict'?\n"
        "  - lease_ttl must be at least 1 s, got 0.5 s. "
        "Leave it out to use the default of 30 s."
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"lease_ttl": "30"}, "must be a number of seconds or a timedelta, got the str '30'"),
        ({"lease_ttl": True}, "got the bool True"),
        ({"lease_ttl": None}, "got the NoneType None"),
        ({"lease_ttl": float("nan")}, "at most"),
        ({"unique_for": float("inf")}, "at most"),
        ({"unique_for": 10**12}, "at most"),
        ({"unique_for": timedelta(milliseconds=999)}, "at least 1 s"),
        ({"unique_for": -5}, "at least 1 s, got -5 s"),
        ({"completed_for": 0}, "at least 1 s"),
        ({"max_deliveries": 0}, "a whole number of at least 1, got 0"),
        ({"max_deliveries": 2.0}, "a whole number"),
        ({"max_deliveries": True}, "a whole number"),
        ({"scope": "until_exectued"}, "Did you mean 'until_executed'?"),
        ({"scope": None}, "'until_executing', 'until_executed' or 'while_executing', got None"),
        ({"on_conflict": 1}, "must be 'raise' or 'skip', got 1"),
        ({"on_store_unavailable": "ignore"}, "must be 'fail' or 'run'"),
        ({"keys": "user_id"}, "Write keys=['user_id']"),
        ({"keys": []}, "give the key a name with key="),
        ({"keys": [1]}, "list of argument names, got [1]"),
        ({"keys": {"a": 1}}, "list of argument names"),
        ({"keys": ["a", "b", "a"]}, "names 'a' twice"),
        ({"key": 7}, "a template such as 'account:{account_id}' or a function, got 7"),
        ({"key": ""}, "must not be empty"),
        ({"key": "a{b"}, "is not a template"),
        ({"key": "{user.id}"}, "has '{user.id}'"),
        ({"key": "{user[id]}"}, "has '{user[id]}'"),
        ({"key": "{}"}, "has '{}'"),
        ({"key": "{0}"}, "has '{0}'"),
        ({"key": "{a!r}"}, "has '{a!r}'"),
        ({"key": "{a:>5}"}, "has '{a:>5}'"),
        ({"key": "{a}", "keys": ["a"]}, "exclude each other"),
        ({"lease_tll": 5}, "Did you mean 'lease_ttl'?"),
        ({"gracefull": True}, "Did you mean 'graceful'?"),
        ({"zzz": 5}, "'zzz' is not an option."),
        ({3: 5}, "3 is not an option."),
        ("skip", "once must be True, False, a dict of options or Once(...), got 'skip'"),
        (1, "once must be True"),
    ],
)
def test_a_wrong_option_is_refused_with_its_rule(value: object, says: str) -> None:
    """A guard that is silently off, or other than meant, is found in production."""
    problems = refused(value)
    assert len(problems) == 1
    assert says in problems[0]


@pytest.mark.parametrize(
    ("value", "exists"),
    [
        ({"scope": "until_and_while_executing"}, "'until_executed'"),
        ({"scope": "until_expired"}, "'until_executed'"),
        ({"on_conflict": "replace"}, "'raise' or 'skip'"),
        ({"on_conflict": "join"}, "'raise' or 'skip'"),
        ({"on_run_conflict": "reject"}, "'skip' or 'reschedule'"),
        ({"on_run_conflict": "join"}, "'skip' or 'reschedule'"),
        ({"limit": 2}, "only 1 does"),
        ({"limit": True}, "only 1 does"),
        ({"lock_at_least_for": 5}, "only 0.0 does"),
        ({"lock_at_most_for": 5}, "only None does"),
    ],
)
def test_what_is_planned_is_refused_as_that(value: object, exists: str) -> None:
    """Accepting it without doing it would promise a protection that is not there."""
    (problem,) = refused(value)
    assert "not exist yet" in problem
    assert exists in problem


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"graceful": True}, {"on_conflict": "skip"}),
        ({"graceful": False}, {"on_conflict": "raise"}),
        ({"unlock_before_run": True}, {"scope": "until_executing"}),
        ({"unlock_before_run": False}, {"scope": "until_executed"}),
        ({"timeout": 60}, {"unique_for": 60}),
        ({"timeout": 60, "unique_for": timedelta(minutes=1)}, {"unique_for": 60}),
        ({"graceful": True, "on_conflict": OnConflict.SKIP}, {"on_conflict": "skip"}),
    ],
)
def test_spellings_of_celery_once_stay_valid(old: Any, new: Any) -> None:
    """A project moves by changing its import."""
    assert parse(old, owner="t") == parse(new, owner="t") == Once(**old)
    assert parse(old, owner="t").given == frozenset(new)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"graceful": True, "on_conflict": "raise"}, "graceful=True means on_conflict='skip'"),
        ({"unlock_before_run": True, "scope": "while_executing"}, "Keep scope"),
        ({"timeout": 60, "unique_for": 61}, "Keep unique_for"),
        ({"graceful": 1}, "graceful must be True or False, got 1"),
        ({"timeout": "60"}, "unique_for must be a number of seconds"),
    ],
)
def test_an_old_spelling_that_contradicts_or_is_wrong_is_refused(
    value: object, says: str
) -> None:
    """Which of the two was meant is not ours to guess."""
    (problem,) = refused(value)
    assert says in problem


def test_defaults_stand_where_a_task_says_nothing() -> None:
    """`once_defaults` are for what the task leaves open, in whatever form it is declared."""
    defaults = check_defaults({"lease_ttl": 5, "graceful": True}, "once_defaults")
    for value in ({"lease_ttl": 30}, Once(lease_ttl=30)):
        once = parse(value, owner="t", defaults=defaults)
        assert (once.lease_ttl, once.on_conflict) == (30.0, "skip")
        assert once.given == {"lease_ttl"}
    assert parse(True, owner="t", defaults=defaults).lease_ttl == 5.0


def test_a_key_can_not_be_a_default() -> None:
    """One key for all tasks of a project would let one of them run at a time."""
    with pytest.raises(InvalidOptions) as caught:
        check_defaults({"key": "x", "keys": ["a"], "lease_tll": 5}, "once_defaults")
    assert len(caught.value.problems) == 3
    with pytest.raises(InvalidOptions, match="must be a dict"):
        check_defaults("skip", "once_defaults")


def test_a_call_overrides_only_what_it_names() -> None:
    """The rest stays as the task says."""
    base = parse({"keys": ["a"], "lease_ttl": 5}, owner="t")
    once = override(base, {"graceful": True}, "t")
    assert (once.keys, once.lease_ttl, once.on_conflict) == (("a",), 5.0, "skip")
    assert once.given == {"on_conflict"}
    assert override(base, True, "t") == base


def test_a_call_may_replace_the_way_to_the_key() -> None:
    """`key` for one call stands instead of the task's `keys`, and the other way round."""
    by_keys, by_key = Once(keys=["a"]), Once(key="{a}")
    assert override(by_keys, {"key": "x"}, "t") == Once(key="x")
    assert override(by_key, {"keys": ["a"]}, "t") == by_keys


def test_a_wrong_override_names_its_owner() -> None:
    """It is raised where the call is made, among others."""
    with pytest.raises(InvalidOptions, match="a call of t has invalid"):
        override(Once(), {"lease_ttl": 0}, "a call of t")


def test_overrides_reach_the_worker_in_a_header() -> None:
    """The header passes through every serializer, so it holds plain values only."""
    base = Once(keys=["a"], max_deliveries=3)
    once = override(
        base, {"key": str, "graceful": True, "unique_for": timedelta(minutes=1)}, "t"
    )
    header = once.to_header()
    assert header == {"on_conflict": "skip", "unique_for": 60.0}
    assert {type(value) for value in header.values()} == {str, float}
    again = override(base, sent(header), "t")
    assert (again.on_conflict, again.unique_for, again.max_deliveries) == ("skip", 60.0, 3)
    assert Once().to_header() == {}


def sync(user_id: int, full: bool = False) -> None:
    """Stand for a task."""


def anything(**extra: int) -> None:
    """Stand for a task that takes any name."""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keys": ["user"]}, "keys names 'user', which is not an argument of the task"),
        ({"keys": ["user"]}, "Did you mean 'user_id'?"),
        ({"key": "u:{usr_id}"}, "key='u:{usr_id}' names 'usr_id'"),
        ({"key": lambda user: f"{user}"}, "the function of key names 'user'"),
    ],
)
def test_names_that_the_task_does_not_take_are_refused(options: Any, says: str) -> None:
    """A renamed argument would otherwise make all calls equal, or fail at publish."""
    with pytest.raises(InvalidOptions) as caught:
        check_signature(Once(**options), inspect.signature(sync), "tasks.sync")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"keys": ["user_id", "full"]},
        {"key": "rebuild"},
        {"key": "{full}:{user_id}"},
        {"key": lambda user_id, other=1: f"{user_id}{other}"},
        {"key": lambda **call: str(call)},
    ],
)
def test_names_that_the_task_takes_pass(options: Any) -> None:
    """A function may have defaults for what the task does not take."""
    check_signature(Once(**options), inspect.signature(sync), "tasks.sync")


def test_a_task_that_takes_any_name_is_checked_at_the_call() -> None:
    """`**kwargs` may hold it."""
    check_signature(Once(keys=["x"]), inspect.signature(anything), "tasks.anything")


@pytest.mark.parametrize(
    "word", [*Scope, *OnConflict, *OnRunConflict, *OnStoreUnavailable, *OverlapPolicy]
)
def test_words_print_as_they_are_written(word: Any) -> None:
    """Log lines and errors show 'skip', not 'OnConflict.SKIP', under any Python."""
    assert str(word) == f"{word}" == word.value


BEATS = {
    "overlap_policy": "buffer_one",
    "misfire_grace_time": 5,
    "jitter": timedelta(seconds=2),
}


@pytest.mark.parametrize("value", [BEATS, Once(**BEATS)], ids=["dict", "object"])  # type: ignore[arg-type]
def test_what_belongs_to_beat_entries_is_refused_elsewhere(value: object) -> None:
    """A task with an overlap_policy would look protected from ticks, and nobody reads it."""
    problems = refused(value)
    assert len(problems) == 3
    for name, problem in zip(sorted(BEATS), sorted(problems), strict=True):
        assert problem.startswith(f"'{name}' belongs to beat entries.")
        assert "once_defaults" in problem
    with pytest.raises(InvalidOptions, match="belongs to beat entries"):
        override(Once(), value, "a call of t")


def test_an_entry_takes_the_options_of_tasks_and_its_own() -> None:
    """Entries are one more place of `once`, not another language."""
    written = {**BEATS, "keys": ["user_id"], "graceful": True, "lease_ttl": 5}
    once = parse(written, owner="beat entry 'nightly'", beat=True)
    assert once == Once(**written)  # type: ignore[arg-type]
    assert (once.overlap_policy, once.misfire_grace_time) == (OverlapPolicy.BUFFER_ONE, 5.0)
    assert (once.jitter, once.keys, once.on_conflict) == (2.0, ("user_id",), "skip")
    assert override(Once(keys=["user_id"]), BEATS, "an entry", beat=True).jitter == 2.0


def test_an_entry_says_nothing_by_default() -> None:
    """The safe policy, no limit to lateness, and no delay."""
    once = parse(True, owner="beat entry 'nightly'", beat=True)
    assert once.overlap_policy is OverlapPolicy.SKIP
    assert (once.misfire_grace_time, once.jitter) == (None, 0.0)


def test_what_is_beats_may_be_a_default_and_does_not_travel() -> None:
    """One policy for all entries; a worker of an older version need not know its name."""
    defaults = check_defaults(BEATS, "once_defaults")
    assert parse(True, owner="t", defaults=defaults).overlap_policy == "buffer_one"
    once = parse({**BEATS, "lease_ttl": 5}, owner="an entry", beat=True)
    assert once.to_header() == {"lease_ttl": 5.0}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"overlap_policy": "buffer"}, "Did you mean 'buffer_one'?"),
        ({"overlap_policy": "allow"}, "'skip', 'buffer_one', 'keep_latest', 'cancel_other'"),
        ({"overlap_policy": None}, "overlap_policy must be"),
        ({"misfire_grace_time": 0}, "misfire_grace_time must be at least 0.1 s"),
        ({"misfire_grace_time": "60"}, "must be a number of seconds"),
        ({"jitter": -1}, "jitter must be at least 0 s"),
        ({"jitter": None}, "jitter must be a number of seconds"),
        ({"jiter": 1}, "Did you mean 'jitter'?"),
    ],
)
def test_a_wrong_option_of_an_entry_is_refused_with_its_rule(value: object, says: str) -> None:
    """As for tasks."""
    with pytest.raises(InvalidOptions) as caught:
        parse(value, owner="beat entry 'nightly'", beat=True)
    (problem,) = caught.value.problems
    assert says in problem
