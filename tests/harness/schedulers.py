"""Beat's schedulers, where each keeps its schedule, and rows that a test adds there."""

import atexit
import contextlib
import functools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from celery import Celery

from tests.harness.program import ROOT
from tests.harness.schedule import Entry, schedule_of


class Scheduler(ABC):
    """A class for `celery beat --scheduler`, and what it needs."""

    path: ClassVar[str]
    """Import path, as users write it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def conf(self, conf: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Celery settings, given those of the site."""
        return {}

    def environment(self) -> dict[str, str]:
        """Variables of the process."""
        return {}


class Rows(Scheduler):
    """A scheduler whose entries are also made by hand, in a store of its own."""

    @abstractmethod
    def add(self, conf: dict[str, Any], name: str, entry: Entry) -> None:
        """Add an entry as users do, with `once` among the headers."""

    @abstractmethod
    def total_run_count(self, conf: dict[str, Any], name: str) -> int:
        """How often the store says that the entry ran."""


class Persistent(Scheduler):
    """Celery's default, with a file."""

    path = "celery.beat:PersistentScheduler"


class Memory(Scheduler):
    """Celery's simplest, which forgets."""

    path = "celery.beat:Scheduler"


class RedBeat(Rows):
    """Keys in Redis, and a lock that one beat holds."""

    path = "redbeat.RedBeatScheduler"
    lock_timeout: ClassVar = 3

    def conf(self, conf: dict[str, Any]) -> dict[str, Any]:
        """A database of its own on the site's server."""
        server = conf["broker_url"].replace("redis+socket", "unix")
        return {
            "redbeat_redis_url": f"{server}?db=2",
            "redbeat_redis_options": {},
            "redbeat_lock_timeout": self.lock_timeout,
        }

    def add(self, conf: dict[str, Any], name: str, entry: Entry) -> None:
        """Save an entry, as RedBeat's documentation shows."""
        self._entry_class()(
            name,
            entry["task"],
            schedule_of(entry["schedule"]),
            args=entry.get("args", []),
            kwargs=entry.get("kwargs", {}),
            options=options_of(entry),
            app=self._app(conf),
        ).save()

    def total_run_count(self, conf: dict[str, Any], name: str) -> int:
        """As its key says."""
        entries, app = self._entry_class(), self._app(conf)
        app.conf  # noqa: B018  reads the configuration
        meta = entries.load_meta(f"redbeat:{name}", app=app)
        return int(meta.get("total_run_count", 0))

    def _app(self, conf: dict[str, Any]) -> Celery:
        app = Celery("rows", set_as_current=False, fixups=[])
        app.conf.update(self.conf(conf))
        return app

    @staticmethod
    def _entry_class() -> Any:
        from redbeat import RedBeatSchedulerEntry  # noqa: PLC0415  connects a beat_init receiver

        return RedBeatSchedulerEntry


class Database(Rows):
    """Rows in a file of SQLite's."""

    table: ClassVar[str]

    @property
    def file(self) -> Path:
        """One for all beats of a site."""
        return self.directory / f"{type(self).__name__.lower()}.sqlite"

    def total_run_count(self, conf: dict[str, Any], name: str) -> int:  # noqa: ARG002
        """As the row says."""
        return int(self.column("total_run_count", name))

    def column(self, column: str, name: str) -> Any:
        """Read one column of an entry's row."""
        with closing(sqlite3.connect(self.file, timeout=10)) as database:
            query = f"SELECT {column} FROM {self.table} WHERE name = ?"  # noqa: S608
            return database.execute(query, (name,)).fetchone()[0]

    def write(self, name: str, **columns: Any) -> None:
        """Change an entry's row behind the backs of the beats."""
        places = ", ".join(f"{column} = ?" for column in columns)
        with closing(sqlite3.connect(self.file, timeout=10)) as database, database:
            query = f"UPDATE {self.table} SET {places} WHERE name = ?"  # noqa: S608
            database.execute(query, (*columns.values(), name))

    def multiply(self, name: str, others: Sequence[str]) -> None:
        """Add rows like this one, each with its own name for its argument."""
        with closing(sqlite3.connect(self.file, timeout=10)) as database, database:
            database.row_factory = sqlite3.Row
            query = f"SELECT * FROM {self.table} WHERE name = ?"  # noqa: S608
            first = dict(database.execute(query, (name,)).fetchone())
            del first["id"]
            for other in others:
                columns = first | {"name": other, "args": json.dumps([other])}
                places = ", ".join(f":{column}" for column in columns)
                insert = f"INSERT INTO {self.table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608
                database.execute(insert, columns)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nobody else write for a while, as a database does that fails over."""
        with closing(sqlite3.connect(self.file, timeout=10)) as database:
            database.execute("BEGIN IMMEDIATE")
            yield

    @abstractmethod
    def copied(self, file: Path) -> dict[str, Any]:
        """Copy the database; returns the options with which `Site.spawn_beat` uses the copy."""


class Django(Database):
    """django-celery-beat, in an app that Celery's Django fixup finds."""

    path = "django_celery_beat.schedulers:DatabaseScheduler"
    table = "django_celery_beat_periodictask"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        if not self.file.exists():
            shutil.copy(migrated(), self.file)

    def environment(self) -> dict[str, str]:
        """Settings and file."""
        return django_environment(self.file)

    def add(self, conf: dict[str, Any], name: str, entry: Entry) -> None:  # noqa: ARG002
        """Add a row as Django's admin does."""
        kind, columns = schedule_row_of(entry["schedule"])
        row = row_of(name, entry) | {kind: columns}
        django(self.file, "add", json.dumps(row, default=str))

    def copied(self, file: Path) -> dict[str, Any]:
        """By its environment."""
        shutil.copy(self.file, file)
        return {"environment": django_environment(file)}


class Sqlalchemy(Database):
    """sqlalchemy-celery-beat, which makes its tables itself."""

    path = "sqlalchemy_celery_beat.schedulers:DatabaseScheduler"
    table = "celery_periodictask"

    def conf(self, conf: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Where the rows are."""
        return {"beat_dburi": f"sqlite:///{self.file}"}

    def add(self, conf: dict[str, Any], name: str, entry: Entry) -> None:
        """Add a row, as the package's documentation shows."""
        from sqlalchemy_celery_beat import models  # noqa: PLC0415  loads SQLAlchemy
        from sqlalchemy_celery_beat.session import SessionManager  # noqa: PLC0415

        manager = SessionManager()
        engine, make_session = manager.create_session(self.conf(conf)["beat_dburi"])
        manager.prepare_models(engine)
        with make_session() as session:
            kinds = {"interval": models.IntervalSchedule, "clocked": models.ClockedSchedule}
            kind, columns = schedule_row_of(entry["schedule"])
            schedule = kinds[kind](**columns)
            session.add(schedule)
            session.commit()
            session.add(models.PeriodicTask(schedule_model=schedule, **row_of(name, entry)))
            session.commit()

    def copied(self, file: Path) -> dict[str, Any]:
        """By its settings."""
        shutil.copy(self.file, file)
        return {"conf": {"beat_dburi": f"sqlite:///{file}"}}


DATABASES: dict[str, type[Database]] = {"django": Django, "sqlalchemy": Sqlalchemy}
STORES: dict[str, type[Rows]] = {"redbeat": RedBeat, **DATABASES}
SCHEDULERS: dict[str, type[Scheduler]] = {
    "persistent": Persistent,
    "memory": Memory,
    **STORES,
}


def row_of(name: str, entry: Entry) -> dict[str, Any]:
    """Columns that both databases have."""
    more = {key: entry[key] for key in ("one_off",) if key in entry}
    return more | {
        "name": name,
        "task": entry["task"],
        "args": json.dumps(entry.get("args", [])),
        "kwargs": json.dumps(entry.get("kwargs", {})),
        "headers": json.dumps(options_of(entry).get("headers", {})),
    }


def options_of(entry: Entry) -> dict[str, Any]:
    """Options of an entry in a store, with `once` where it survives: in the headers."""
    options = dict(entry.get("options", {}))
    if "once" in entry:
        options["headers"] = {**options.get("headers", {}), "once": entry["once"]}
    return options


def schedule_row_of(schedule: Any) -> tuple[str, dict[str, Any]]:
    """Tell the kind of a schedule's row, and its columns; an instant is `{"clocked": it}`."""
    if isinstance(schedule, dict):
        return "clocked", {"clocked_time": schedule["clocked"]}
    return "interval", interval_of(schedule)


def interval_of(seconds: float) -> dict[str, Any]:
    """An interval as databases keep it: whole numbers."""
    if seconds == int(seconds):
        return {"every": int(seconds), "period": "seconds"}
    return {"every": int(seconds * 1_000_000), "period": "microseconds"}


@functools.cache
def migrated() -> Path:
    """An empty database of Django's, made once for each test process."""
    directory = Path(tempfile.mkdtemp(prefix="og-django-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    django(directory / "empty.sqlite", "migrate")
    return directory / "empty.sqlite"


def django(file: Path, *words: str) -> None:
    """Run `tests.harness.django_rows` on a database, in a process of its own."""
    command = [sys.executable, "-m", "tests.harness.django_rows", *words]
    environment = {**os.environ, **django_environment(file)}
    subprocess.run(command, env=environment, check=True, timeout=60)


def django_environment(file: Path) -> dict[str, str]:
    """Lead a process to Django's settings and to the database."""
    return {
        "DJANGO_SETTINGS_MODULE": "tests.harness.django_settings",
        "HARNESS_DJANGO_DATABASE": str(file),
        "PYTHONPATH": str(ROOT),
    }
