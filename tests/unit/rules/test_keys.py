"""Keys of calls: what is one call, what are two."""

from __future__ import annotations

import inspect
import time
import timeit
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from onceguard.rules.errors import KeyNotComputable
from onceguard.rules.keys import LONGEST, KeyMaker, key_of
from onceguard.rules.options import Once

if TYPE_CHECKING:
    from collections.abc import Callable

Parameter = inspect.Parameter


def sync(user_id: Any, full: bool = False, *, dry: bool = False) -> None:
    """Stand for the usual task."""


def maker(function: Callable[..., Any] = sync, **options: Any) -> KeyMaker:
    return KeyMaker("proj.sync", inspect.signature(function), Once(**options))


def outcome(call: Callable[[], str]) -> str:
    try:
        return call()
    except TypeError as error:
        return f"{type(error).__name__}: {error}"


def test_a_default_key_can_be_read() -> None:
    """It is what a person sees in redis-cli, in the log and in AlreadyQueued."""
    assert maker()((7,)) == "proj.sync(user_id=7,full=false,dry=false)"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1,), {}),
        ([1], None),
        (None, {"user_id": 1}),
        ((), {"full": False, "user_id": 1}),
        ((1, False), {"dry": False}),
    ],
)
def test_every_way_to_write_a_call_is_one_key(args: Any, kwargs: Any) -> None:
    """`f(1)`, `f(x=1)` and a default written out do the same work."""
    assert maker()(args, kwargs) == maker()((1,), {})


def test_values_that_python_finds_equal_are_four_calls() -> None:
    """`1 == True == 1.0` in a dict, but a task may treat them differently."""
    make = maker()
    assert len({make((value,)) for value in (1, "1", True, 1.0)}) == 4


NAMES = ("a", "b", "c", "d")
VALUES = st.integers(0, 2) | st.sampled_from(["0", None, True, [1], {"k": (1,)}])


@st.composite
def signatures(draw: st.DrawFn) -> inspect.Signature:
    names = NAMES[: draw(st.integers(0, 4))]
    keyword_only = draw(st.integers(0, len(names)))
    optional = draw(st.integers(0, len(names)))
    parameters = []
    for index, name in enumerate(names):
        by_keyword = index >= keyword_only
        kind = Parameter.KEYWORD_ONLY if by_keyword else Parameter.POSITIONAL_OR_KEYWORD
        with_default = draw(st.booleans()) if by_keyword else index >= optional
        default = draw(VALUES) if with_default else Parameter.empty
        parameters.append(Parameter(name, kind, default=default))
    return inspect.Signature(parameters)


@given(
    signatures(),
    st.lists(VALUES, max_size=5),
    st.dictionaries(st.sampled_from([*NAMES, "e"]), VALUES),
)
def test_fast_binding_is_what_python_does(
    signature: inspect.Signature, args: list[Any], kwargs: dict[str, Any]
) -> None:
    """
    The common case has a binder of its own, ten times as fast as inspect's.

    It must not only give the same key, it must refuse the same calls.
    """
    make = KeyMaker("proj.sync", signature, Once())
    slow = outcome(lambda: key_of("proj.sync", make.bind(args, kwargs), Once()))
    assert outcome(lambda: make(args, kwargs)) == slow


@given(
    signatures(),
    st.lists(VALUES, max_size=5),
    st.dictionaries(st.sampled_from([*NAMES, "e"]), VALUES),
)
def test_fast_binding_is_taken_for_every_good_plain_call(
    signature: inspect.Signature, args: list[Any], kwargs: dict[str, Any]
) -> None:
    """A fast path that is never taken would pass every other test."""
    make = KeyMaker("proj.sync", signature, Once())
    try:
        slow = make.bind(args, kwargs)
    except TypeError:
        assert make._bind_fast(args, kwargs) is None
    else:
        fast = make._bind_fast(args, kwargs)
        assert fast is not None
        assert list(fast.items()) == list(slow.items())


def test_a_plain_call_never_waits_for_inspect() -> None:
    """Every publish makes a key; inspect's binding alone takes twice as long as all of it."""
    make = maker()
    whole = timeit.Timer(lambda: make((7,), {}), timer=time.thread_time)
    slow_binding = timeit.Timer(lambda: make.bind((7,), {}), timer=time.thread_time)
    # In turns and in short pieces, of which a loaded machine leaves some alone.
    turns = [(whole.timeit(200), slow_binding.timeit(200)) for _ in range(100)]
    assert min(turn[0] for turn in turns) < min(turn[1] for turn in turns)


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((), {}, "missing a required argument: 'user_id'"),
        ((1, True, True), {}, "too many positional arguments"),
        ((1,), {"user_id": 2}, "multiple values for argument 'user_id'"),
        ((1,), {"ful": True}, "unexpected keyword argument 'ful'"),
    ],
)
def test_a_call_that_cannot_be_made_is_a_type_error_with_the_task(
    args: Any, kwargs: Any, says: str
) -> None:
    """It fails where it is published, as Celery's own check of arguments does."""
    with pytest.raises(TypeError, match=r"proj\.sync") as caught:
        maker()(args, kwargs)
    assert says in str(caught.value)
    assert not isinstance(caught.value, KeyNotComputable)


def rich(a: int, /, b: int = 2, *rest: int, c: int = 3, **extra: int) -> None:
    """Take arguments in every way."""


def test_extra_keyword_arguments_are_sorted() -> None:
    """The order in which a caller writes them is no part of the call."""
    make = maker(rich)
    assert make((1,), {"z": 1, "y": 2}) == make((1,), {"y": 2, "z": 1})
    assert make((1, 2, 9), {"z": 1}) == "proj.sync(a=1,b=2,rest=[9],c=3,z=1)"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (((1,), {"x": 1, "y": 2}), ((1,), {"x=1,y": 2})),
        (((1,), {"a": 2}), ((2,), {"a": 1})),
        (((1, 2, 3), {}), ((1, 2), {})),
    ],
)
def test_extra_arguments_cannot_imitate_others(one: Any, other: Any) -> None:
    """Two different calls with one key would lose one of them."""
    assert maker(rich)(*one) != maker(rich)(*other)


def test_keys_choose_the_arguments_that_count() -> None:
    """A call that only differs in what `keys` leaves out is the same work."""
    make = maker(keys=["user_id"])
    assert make((7, True)) == make((7,), {"dry": True}) == "proj.sync(user_id=7)"


def test_order_of_keys_does_not_matter() -> None:
    """Two tasks' worth of habits should not make two keys."""
    both = {maker(keys=["full", "user_id"])((7,)), maker(keys=["user_id", "full"])((7,))}
    assert both == {"proj.sync(user_id=7,full=false)"}


def test_keys_may_name_all_extra_arguments_or_one() -> None:
    """A task that takes anything can still be identified by some of it."""
    assert maker(rich, keys=["extra"])((1,), {"z": 1}) == 'proj.sync(extra={"z":1})'
    assert maker(rich, keys=["z"])((1,), {"z": 1, "y": 2}) == "proj.sync(z=1)"
    assert maker(rich, keys=["z"])((1,), {"y": 2}) == "proj.sync()"


def test_an_ignored_argument_needs_no_text() -> None:
    """`keys` is the way out that the error offers, so it has to work."""
    assert maker(keys=["full"])((object(),)) == "proj.sync(full=false)"


def test_an_argument_without_text_is_refused_with_the_way_out() -> None:
    """Whoever calls the task needs the argument's name, its type, and what to do."""
    with pytest.raises(KeyNotComputable) as caught:
        maker()(([object()],))
    error = caught.value
    assert (error.task, error.argument, error.value_type) == ("proj.sync", "user_id", "object")
    assert 'once={"keys": [...]}' in str(error)
    assert 'once={"key": ...}' in str(error)


class User(BaseModel):
    """A pydantic argument."""

    id: int


def test_a_pydantic_model_and_its_dump_are_one_key() -> None:
    """`apply_async` sees the model, the worker the dumped dict."""
    assert maker()((User(id=7),)) == maker()(({"id": 7},))


@pytest.mark.parametrize("value", ["x" * LONGEST, "a b", "ü" * 30])
def test_a_long_or_odd_key_is_a_digest_with_the_task_in_front(value: str) -> None:
    """Records part their fields by spaces; memory must not grow with the arguments."""
    key = maker()((value,))
    assert key.startswith("proj.sync#")
    assert len(key) == len("proj.sync#") + 32


def test_a_key_of_the_longest_length_stays_readable() -> None:
    """The limit itself is allowed; one more is not."""
    make = maker(key="{user_id}")
    assert make(("x" * 120,)) == "x" * 120
    assert "#" in make(("x" * 121,))


@given(st.text(), st.text())
def test_digests_tell_texts_apart(one: str, other: str) -> None:
    """A digest of a part of the text would merge calls that differ in the rest."""
    make = maker()
    assert (make((one + " ",)) == make((other + " ",))) == (one == other)


def test_an_odd_task_name_gives_a_plain_key() -> None:
    """Task names are the user's to choose, and each has keys of its own."""
    names = ("proj.tâsk one", "proj.tâsk two" + "x" * 200)
    keys = {KeyMaker(name, inspect.signature(sync), Once())((1,)) for name in names}
    assert len(keys) == 2
    assert all(len(key) <= LONGEST and key.isascii() and " " not in key for key in keys)


def test_a_template_is_shared_by_tasks_that_spell_it_alike() -> None:
    """Two tasks that write one account must not run at a time."""
    make = KeyMaker("proj.other", inspect.signature(sync), Once(key="account:{user_id}"))
    assert make((7,)) == maker(key="account:{user_id}")((7,)) == "account:7"


def test_a_template_takes_texts_raw_and_the_rest_in_canonical_form() -> None:
    """A key is written for people; quotes around a name would only be in the way."""
    make = maker(key="u:{user_id}:{full}:{dry}:{{}}")
    assert make(("ann", True)) == "u:ann:true:false:{}"
    assert make(([1, "a"],)) == 'u:[1,"a"]:false:false:{}'


def test_an_odd_template_key_keeps_the_text_before_its_first_gap() -> None:
    """Somebody who lists keys should still see which kind this is."""
    key = maker(key="user:{user_id}")(("ann lee",))
    assert key.startswith("user:#")
    assert key != maker(key="user:{user_id}")(("ann  lee",))


@pytest.mark.parametrize(
    ("function", "options", "call", "argument", "says"),
    [
        (sync, {"key": "{user_id}"}, (("",), {}), "", "empty"),
        (sync, {"key": "{user_id}"}, ((object(),), {}), "user_id", "object"),
        (rich, {"key": "{z}"}, ((1,), {}), "z", "does not have it"),
        (sync, {"key": lambda **_: ""}, ((1,), {}), "", "not empty"),
        (sync, {"key": lambda **_: 7}, ((1,), {}), "", "got 7"),
        (sync, {"key": lambda user_id: user_id.pk}, ((1,), {}), "", "AttributeError"),
    ],
)
def test_a_key_of_the_users_that_fails_says_why(
    function: Any, options: Any, call: Any, argument: str, says: str
) -> None:
    """An empty or missing key would guard all calls with one lock, or none."""
    with pytest.raises(KeyNotComputable, match=says) as caught:
        maker(function, **options)(*call)
    assert caught.value.argument == argument


def test_a_function_gets_the_arguments_that_it_names_with_defaults_applied() -> None:
    """A lambda of the one argument that matters is what people write."""
    make = maker(key=lambda user_id, full: f"{user_id}/{full}")
    assert make((7,)) == "7/False"
    assert maker(key=lambda **call: "/".join(call))((7,)) == "user_id/full/dry"


def test_a_key_of_bound_arguments_needs_no_maker() -> None:
    """Whoever has the arguments by name, as the CLI does, gets the same key."""
    bound = {"user_id": 7, "full": False, "dry": False}
    assert key_of("proj.sync", bound, Once()) == maker()((7,))
