"""What schedule entries say with `once`: where it may stand, and what it means."""

import copy
import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery, Task
from celery.beat import ScheduleEntry

from onceguard import Once, QueueOnce, setup
from onceguard.beat.entries import Declarations, cleaned, normalise, normalised
from onceguard.rules.options import OverlapPolicy, Scope, parse

ENTRY: dict[str, Any] = {"task": "proj.sync", "schedule": 60.0, "args": [7]}
OPTIONS: dict[str, Any] = {
    "keys": ("user_id",),
    "overlap_policy": OverlapPolicy.BUFFER_ONE,
    "misfire_grace_time": timedelta(minutes=5),
    "jitter": 2,
    "graceful": True,
    "lease_ttl": 5,
}
AS_JSON = {
    "keys": ["user_id"],
    "overlap_policy": "buffer_one",
    "misfire_grace_time": 300.0,
    "jitter": 2.0,
    "on_conflict": "skip",
    "lease_ttl": 5.0,
}


def said(entry: Any) -> Any:
    """What a normalised entry says, as it comes back from a database row."""
    assert "once" not in entry
    assert "once" not in entry["options"]
    headers = json.loads(json.dumps(entry["options"]["headers"]))
    return headers["once"]


PLACES = pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda once: {"once": once}, id="top level"),
        pytest.param(lambda once: {"options": {"once": once}}, id="options"),
        pytest.param(lambda once: {"options": {"headers": {"once": once}}}, id="headers"),
    ],
)


@PLACES
@pytest.mark.parametrize(
    ("once", "stored"),
    [
        (True, True),
        ({}, True),
        (Once(), True),
        (False, False),
        (None, False),
        (OPTIONS, AS_JSON),
        (Once(**OPTIONS), AS_JSON),
    ],
    ids=["True", "empty dict", "empty Once", "False", "None", "dict", "Once"],
)
def test_once_is_kept_among_the_headers(place: Any, once: Any, stored: Any) -> None:
    """Which all four schedulers store; at the top level it would end beat."""
    assert said(normalised("nightly", {**ENTRY, **place(once)})) == stored


@PLACES
def test_nothing_of_ours_is_stored(place: Any) -> None:
    """Celery's own scheduler pickles its entries: without onceguard beat must still start."""
    normal = normalised("nightly", {**ENTRY, **place(Once(**OPTIONS))})
    for value in normal["options"]["headers"]["once"].values():
        assert type(value) in {str, float, int, bool, list}


def test_what_was_stored_means_what_was_written() -> None:
    """By way of a database row."""
    again = parse(said(normalised("n", {**ENTRY, "once": OPTIONS})), owner="n", beat=True)
    assert again == Once(**OPTIONS)
    assert again.given == Once(**OPTIONS).given


@PLACES
def test_an_entry_can_be_normalised_twice(place: Any) -> None:
    """Once in the configuration, and once when it is added to a scheduler."""
    first = normalised("nightly", {**ENTRY, **place(OPTIONS)})
    assert normalised("nightly", first) == first


@PLACES
def test_what_was_written_is_not_changed(place: Any) -> None:
    """Settings modules share dicts between entries, and between apps."""
    entry = {**ENTRY, **place(OPTIONS)}
    entry.setdefault("options", {}).setdefault("queue", "slow")
    before = copy.deepcopy(entry)
    normal = normalised("nightly", entry)
    assert entry == before
    normal["options"]["headers"]["x"] = 1
    assert entry == before


def test_everything_else_in_an_entry_stays() -> None:
    """Queue, priority, other headers, and keys of the scheduler's own."""
    entry = {
        **ENTRY,
        "once": True,
        "relative": True,
        "options": {"queue": "slow", "headers": {"x": 1}},
    }
    assert normalised("nightly", entry) == {
        **ENTRY,
        "relative": True,
        "options": {"queue": "slow", "headers": {"x": 1, "once": True}},
    }


@pytest.mark.parametrize(
    "entry",
    [ENTRY, {**ENTRY, "options": None}, {**ENTRY, "options": {"headers": None}}, object()],
)
def test_an_entry_that_says_nothing_is_left_alone(entry: Any) -> None:
    """Also one that is an object of the scheduler's already."""
    assert normalised("nightly", entry) is entry


@pytest.mark.parametrize("empty", [{"options": None}, {"options": {"headers": None}}])
def test_empty_options_and_headers_are_no_obstacle(empty: Any) -> None:
    """Settings made by programs have them."""
    assert said(normalised("nightly", {**ENTRY, **empty, "once": True})) is True


def test_the_top_level_is_asked_first() -> None:
    """Where an entry says it twice, the place that the docs show wins."""
    entry = {**ENTRY, "once": {"jitter": 1}, "options": {"once": {"jitter": 2}}}
    assert said(normalised("nightly", entry)) == {"jitter": 1.0}


def test_a_schedule_is_normalised_in_place() -> None:
    """Celery hands out the one dict of the configuration."""
    schedule = {"a": {**ENTRY, "once": True}, "b": ENTRY}
    normalise(schedule)
    assert said(schedule["a"]) is True
    assert schedule["b"] is ENTRY


def test_celery_makes_entries_of_what_is_normalised() -> None:
    """It passes each key as an argument."""
    entry = ScheduleEntry("nightly", **normalised("nightly", {**ENTRY, "once": OPTIONS}))
    assert entry.options["headers"]["once"] == AS_JSON


@PLACES
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"overlap": "skip"}, "'overlap' is not an option. Did you mean 'overlap_policy'?"),
        ({"key": lambda user_id: f"u{user_id}"}, "key is a function"),
        (Once(key=str), "Write a template"),
        ("yes", "once must be True, False, a dict of options or Once(...), got 'yes'"),
        (1, "got 1"),
    ],
    ids=["misspelt", "function", "function in Once", "text", "number"],
)
def test_an_entry_with_a_wrong_once_is_guarded_and_complained_about(
    place: Any, wrong: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Beat goes on; a schedule that is left unguarded by a typing error would not be seen."""
    assert said(normalised("nightly", {**ENTRY, **place(wrong)})) is True
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.ERROR, "celery.beat")
    assert "beat entry 'nightly' has invalid once options" in record.getMessage()
    assert says in record.getMessage()
    assert "guarded as if it said once=True" in record.getMessage()


def test_a_task_is_sent_without_what_its_entry_says_to_us() -> None:
    """Options go to `apply_async`, headers into the message and onto its request."""
    options = {"queue": "q", "once": True, "headers": {"once": True, "x": 1}}
    before = copy.deepcopy(options)
    assert cleaned(options) == {"queue": "q", "headers": {"x": 1}}
    assert options == before
    assert cleaned({}) == {}
    assert cleaned({"headers": None}) == {"headers": None}


@pytest.fixture
def app() -> Celery:
    """An app whose servers do not exist: entries are read without asking them."""
    made = Celery("entries", broker="redis://127.0.0.1:1/0", set_as_current=False)
    made.conf.once_defaults = {"lease_ttl": 7}

    @made.task(base=QueueOnce, once={"keys": ["user_id"], "max_deliveries": 3}, shared=False)
    def sync(user_id: int, full: bool = False) -> None: ...

    @made.task(base=QueueOnce, once={"scope": "while_executing"}, shared=False)
    def freely() -> None: ...

    @made.task(base=QueueOnce, once=False, shared=False)
    def unguarded() -> None: ...

    @made.task(shared=False)
    def plain(user_id: int, full: bool = False) -> None: ...

    @made.task(bind=True, shared=False)
    def bound(self: Task, user_id: int) -> None: ...

    made.finalize()
    return made


def task_of(app: Celery, name: str) -> Any:
    return next(task for full, task in app.tasks.items() if full.endswith(f".{name}"))


def entry_of(app: Celery, task: str, once: Any = "nothing", name: str = "nightly") -> Any:
    """An entry as the scheduler has it, with its task's whole name where that is known."""
    known = [full for full in app.tasks if full.endswith(f".{task}")]
    headers = {} if once == "nothing" else {"headers": {"once": once}}
    return ScheduleEntry(name, known[0] if known else task, 60.0, options=headers, app=app)


def once_of(app: Celery, task: str, once: Any = "nothing") -> Any:
    return Declarations(app).once_of(entry_of(app, task, once))


@pytest.mark.parametrize("said", ["nothing", True, {}], ids=["nothing", "True", "empty dict"])
def test_an_entry_of_a_guarded_task_is_guarded_as_the_task_says(app: Celery, said: Any) -> None:
    """Its calls are refused while one is queued or runs; its ticks are no other calls."""
    once = once_of(app, "sync", said)
    assert (once.keys, once.max_deliveries, once.lease_ttl) == (("user_id",), 3, 7.0)
    assert once.overlap_policy is OverlapPolicy.SKIP


def test_an_entry_overrides_its_task(app: Celery) -> None:
    """As `once=` in a call does, and has options of its own."""
    once = once_of(app, "sync", {"max_deliveries": 4, "overlap_policy": "keep_latest"})
    assert (once.keys, once.max_deliveries, once.lease_ttl) == (("user_id",), 4, 7.0)
    assert once.overlap_policy is OverlapPolicy.KEEP_LATEST
    assert once.to_header() == {"max_deliveries": 4}


def test_an_entry_of_any_task_can_be_guarded(app: Celery) -> None:
    """Known with another base class, or not known to beat at all."""
    for task in ("plain", "proj.elsewhere", "unguarded"):
        once = once_of(app, task, {"overlap_policy": "buffer_one"})
        assert (once.overlap_policy, once.lease_ttl) == (OverlapPolicy.BUFFER_ONE, 7.0)


def test_an_entry_may_say_it_in_its_options(app: Celery) -> None:
    """Those that are made by hand, or by a scheduler of the user's own, come as they are."""
    entry = ScheduleEntry("by hand", "proj.elsewhere", 60.0, options={"once": {"jitter": 3}})
    once = Declarations(app).once_of(entry)
    assert once is not None
    assert once.jitter == 3.0
    entry = ScheduleEntry("by hand", "proj.elsewhere", 60.0, options=None)
    assert Declarations(app).once_of(entry) is None


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("plain", "nothing"),
        ("proj.elsewhere", "nothing"),
        ("unguarded", "nothing"),
        ("sync", False),
        ("sync", None),
        ("plain", False),
    ],
)
def test_an_entry_is_unguarded_where_nobody_says_otherwise(
    app: Celery, task: str, said: Any
) -> None:
    """`once=False` switches off what the task says."""
    assert once_of(app, task, said) is None


def test_ticks_of_a_task_that_claims_nothing_are_all_sent(app: Celery) -> None:
    """Scope while_executing: its calls are published freely, and so are its ticks."""
    assert once_of(app, "freely").overlap_policy is OverlapPolicy.ALLOW_ALL
    assert once_of(app, "freely").scope is Scope.WHILE_EXECUTING
    assert once_of(app, "freely", True).overlap_policy is OverlapPolicy.SKIP


def test_the_policy_may_come_from_once_defaults() -> None:
    """For all entries, as the refusal of `overlap_policy` on a task advises."""
    made = Celery("defaults", broker="redis://127.0.0.1:1/0", set_as_current=False)
    made.conf.once_defaults = {"overlap_policy": "buffer_one", "misfire_grace_time": 30}

    @made.task(base=QueueOnce, name="proj.guarded", shared=False)
    def guarded() -> None: ...

    made.finalize()
    for task, said in (("guarded", "nothing"), ("guarded", True), ("proj.elsewhere", True)):
        once = once_of(made, task, said)
        assert once.overlap_policy is OverlapPolicy.BUFFER_ONE
        assert once.misfire_grace_time == 30.0
    assert once_of(made, "guarded", {"overlap_policy": "skip"}).overlap_policy == "skip"


@pytest.mark.parametrize(
    ("task", "wrong", "says"),
    [
        ("plain", {"overlap": "skip"}, "beat entry 'nightly' has invalid"),
        ("proj.elsewhere", "true", "once must be True"),
        ("sync", {"keys": ["user"]}, "Did you mean 'user_id'?"),
        ("sync", {"lease_ttl": "5"}, "must be a number of seconds"),
    ],
)
def test_a_wrong_row_is_guarded_and_complained_about_once(
    app: Celery, task: str, wrong: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is looked at again at each tick; the log is for people."""
    declared = Declarations(app)
    entry = entry_of(app, task, wrong)
    for _ in range(3):
        once = declared.once_of(entry)
        assert once is not None
        assert once.overlap_policy is OverlapPolicy.SKIP
        assert once.lease_ttl == 7.0
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.name == "celery.beat"
    assert says in record.getMessage()


def test_an_entry_that_is_changed_is_read_again(app: Celery) -> None:
    """Rows are edited in an admin site while beat runs; what they say, and their task."""
    declared = Declarations(app)
    assert declared.once_of(entry_of(app, "plain")) is None
    first = declared.once_of(entry_of(app, "plain", {"jitter": 1}))
    assert first is not None
    assert first.jitter == 1.0
    assert declared.once_of(entry_of(app, "plain", {"jitter": 1})) is first
    assert declared.once_of(entry_of(app, "plain", False)) is None
    assert declared.once_of(entry_of(app, "sync", False)) is None
    guarded = declared.once_of(entry_of(app, "sync"))
    assert guarded is not None
    assert guarded.keys == ("user_id",)
    assert declared.once_of(entry_of(app, "plain")) is None


def key_of(  # noqa: PLR0913
    app: Celery, task: str, once: Any, args: Any = (), kwargs: Any = None, name: str = "nightly"
) -> str:
    declared = Declarations(app)
    entry = entry_of(app, task, once, name)
    options = declared.once_of(entry)
    assert options is not None
    return declared.key_of(entry, options, args, kwargs or {})


def test_a_tick_of_a_guarded_task_has_the_key_of_its_calls(app: Celery) -> None:
    """So that `sync.delay(7)` is refused while the tick with 7 is queued."""
    task = task_of(app, "sync")
    assert key_of(app, "sync", True, (7,)) == task.once_key((7, True), {}, task.once_options)
    full = {"keys": ["user_id", "full"]}
    assert key_of(app, "sync", full, (7,)) == f"{task.name}(user_id=7,full=false)"


@pytest.mark.parametrize(("name", "rest"), [("plain", ",full=false"), ("bound", "")])
def test_arguments_of_a_known_task_are_bound(app: Celery, name: str, rest: str) -> None:
    """Positional and by name are the same call."""
    expected = f"{task_of(app, name).name}(user_id=7{rest})"
    assert key_of(app, name, True, (7,)) == expected
    assert key_of(app, name, True, (), {"user_id": 7}) == expected


def test_arguments_of_an_unknown_task_are_taken_as_they_are_written(app: Celery) -> None:
    """Nobody in this process can bind them; another way of writing them is another key."""
    keys = {
        key_of(app, "proj.elsewhere", True, args, kwargs)
        for args, kwargs in (((7,), {}), ((8,), {}), ((), {"user_id": 7}), ((), {}))
    }
    assert len(keys) == 4
    assert all(key.startswith("proj.elsewhere(") for key in keys)
    by_name = {"keys": ["user_id"]}
    assert (
        key_of(app, "proj.elsewhere", by_name, (), {"user_id": 7, "full": True})
        == "proj.elsewhere(user_id=7)"
    )
    template = {"key": "user:{user_id}"}
    assert key_of(app, "proj.elsewhere", template, (), {"user_id": 7}) == "user:7"


def test_it_is_said_once_that_beat_does_not_know_a_task(
    app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    """Its ticks and its calls from elsewhere may have different keys."""
    declared = Declarations(app)
    entry = entry_of(app, "proj.elsewhere", True)
    options = declared.once_of(entry)
    assert options is not None
    for _ in range(3):
        declared.key_of(entry, options, (7,), {})
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "celery.beat")
    assert "beat does not know the task 'proj.elsewhere'" in record.getMessage()
    caplog.clear()
    known = entry_of(app, "plain", True)
    declared.key_of(known, options, (7,), {})
    assert caplog.records == []


@pytest.mark.parametrize(
    ("task", "once", "args", "says"),
    [
        ("proj.elsewhere", {"keys": ["user_id"]}, (7,), "entry's kwargs do not have it"),
        ("proj.elsewhere", {"key": "user:{user_id}"}, (7,), "template needs it"),
        ("plain", True, (), "missing a required argument: 'user_id'"),
        ("sync", True, (), "missing a required argument: 'user_id'"),
        ("plain", True, (object(),), "has no text that is the same in every process"),
    ],
)
def test_ticks_without_a_computable_key_exclude_one_another_only(  # noqa: PLR0913
    app: Celery, task: str, once: Any, args: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Complained about once; sent unguarded they could pile up."""
    declared = Declarations(app)
    entry = entry_of(app, task, once)
    options = declared.once_of(entry)
    assert options is not None
    keys = {declared.key_of(entry, options, args, {}) for _ in range(3)}
    assert len(keys) == 1
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.name == "celery.beat"
    assert says in record.getMessage()
    assert "beat entry 'nightly'" in record.getMessage()
    other = key_of(app, task, once, args, name="hourly")
    assert other not in keys
    assert " " not in other


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_periodic_tasks_that_are_added_are_normalised(before: bool) -> None:
    """`add_periodic_task(..., once=True)`, before the app is finalized or after."""
    made = Celery("added", broker="redis://127.0.0.1:1/0", set_as_current=False)

    @made.task(name="proj.job", shared=False)
    def job(n: int) -> None: ...

    setup(made)
    if before:
        made.add_periodic_task(60.0, job.s(1), name="added", once=OPTIONS, queue="slow")
    made.finalize()
    if not before:
        made.add_periodic_task(60.0, job.s(1), name="added", once=OPTIONS, queue="slow")
    entry = made.conf.beat_schedule["added"]
    assert said(entry) == AS_JSON
    assert entry["options"]["queue"] == "slow"


def test_every_entry_of_the_configuration_is_normalised() -> None:
    """When the app is finalized: before any scheduler is made of it."""
    made = Celery("configured", broker="redis://127.0.0.1:1/0", set_as_current=False)
    made.conf.beat_schedule = {"nightly": {**ENTRY, "once": True}}
    setup(made)
    setup(made)
    made.finalize()
    assert said(made.conf.beat_schedule["nightly"]) is True
