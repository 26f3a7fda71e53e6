"""Independent masters, and apps that each have lines of their own to them."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import pytest

from onceguard.rules.errors import StoreUnavailable
from onceguard.rules.messages import partition
from onceguard.store.contract import Answer, Renewed
from onceguard.store.names import Names
from onceguard.store.opening import open_store
from tests.harness.proxy import Proxy
from tests.store.rig import PREFIX, Rig, call

if TYPE_CHECKING:
    from onceguard.store.contract import Message
    from tests.harness.masters import Masters
    from tests.harness.redis_server import RedisServer

T = TypeVar("T")
TIMEOUT = 2.0
"""Seconds that an app waits for its masters; what hangs costs so much, once or a few times."""

SLACK = 2.0
"""Seconds that a loaded machine may take for what takes none."""

SHORT = 0.7
"""A lease that is to end; taking one takes no tenth of it."""

M1, M2, M3 = call("m1"), call("m2"), call("m3")


class TooBusyError(Exception):
    """The machine is too slow for the time-outs: what a test arranged did not come about."""


class Line(Proxy):
    """
    A line from an app to a master, over which one question can be held back.

    Questions are calls of our scripts; pottery's are none.
    """

    def __init__(self, port: int) -> None:
        self._left = 0
        self._passing = threading.Event()
        self._passing.set()
        self.holding = threading.Event()
        super().__init__(port)

    def hold_question(self, number: int) -> None:
        """Let nothing pass from the question with this number on, from now, counting from 1."""
        self._left = number
        self.holding.clear()
        self._passing.clear()

    def let_go(self) -> None:
        """Let everything pass."""
        self._left = 0
        self._passing.set()

    def close(self) -> None:
        """End for good."""
        super().close()
        self.let_go()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                if sink.getpeername() == self._target:
                    self._count(data)
                sink.sendall(data)
        with self._guard:
            ours = {source, sink} & self._sockets
            self._sockets -= ours
        for each in ours:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _count(self, data: bytes) -> None:
        if b"EVAL" not in data or b"redlock:" in data or not self._left:
            return
        self._left -= 1
        if not self._left:
            self.holding.set()
            self._passing.wait()


@dataclass
class App:
    """A process's store, and its lines to the masters."""

    rig: Rig
    lines: list[Line]

    def reach(self, *numbers: int) -> None:
        """Reach these masters only, or all of them: the others are away for this app."""
        for number, line in enumerate(self.lines):
            if numbers and number not in numbers:
                line.cut()
            else:
                line.heal()

    def hold_question(self, number: int, *, to: tuple[int, ...] = ()) -> None:
        """Hold a question back on the way to some masters, or to all."""
        for each in self._to(to):
            each.hold_question(number)

    def await_held(self, *, to: tuple[int, ...] = ()) -> None:
        """
        Wait until it is held on all these lines.

        Raises:
            TooBusyError: It does not come; the app has given up the master meanwhile.
        """
        for each in self._to(to):
            if not each.holding.wait(10):
                raise TooBusyError

    def let_go(self) -> None:
        """Let everything pass."""
        for each in self.lines:
            each.let_go()

    def must_ask_all(self) -> None:
        """
        See that no master is left out for a while.

        Raises:
            TooBusyError: One was, for it was too slow.
        """
        if any(voter.rests for voter in self.rig.store._server._voters):  # type: ignore[attr-defined]
            raise TooBusyError

    def forget_rests(self) -> None:
        """Ask those again that did not answer lately."""
        for voter in self.rig.store._server._voters:  # type: ignore[attr-defined]
            voter._rests_until = 0.0

    def close(self) -> None:
        """Close the store and the lines."""
        self.rig.store.close()
        self.rig.raw.close()
        for each in self.lines:
            each.close()

    def _to(self, numbers: tuple[int, ...]) -> list[Line]:
        return [self.lines[each] for each in numbers] if numbers else self.lines


OpenApp = Callable[[], App]


def open_app(masters: Masters, *, socket_timeout: float = TIMEOUT) -> App:
    """Open an app with lines of its own."""
    lines = [Line(server.port) for server in masters.servers]
    urls = [f"redis://127.0.0.1:{line.port}/0" for line in lines]
    store = open_store(urls, prefix=PREFIX, socket_timeout=socket_timeout)
    return App(Rig(store, masters.servers[0].client()), lines)


def names_of(message: Message) -> Names:
    """The Redis keys of a message's partition."""
    return Names(PREFIX, partition(message.key))


def value(server: RedisServer, name: str) -> str:
    """What one master has under a name, or nothing."""
    with server.client() as client:
        return str(client.get(name) or "")


def holds(masters: Masters, message: Message) -> list[str]:
    """Who has a message's key, on each master: ``"claim m1"``, ``"lease m1"``, or nothing."""
    records = [value(each, names_of(message).lease(message)) for each in masters.servers]
    return [" ".join(each.split(" ")[:2]) for each in records]


def notes(masters: Masters, message: Message) -> list[str]:
    """What each master remembers of a message: state, starts, generation."""
    name = names_of(message).record(message.message_id)
    return [" ".join(value(each, name).split(" ")[:3]) for each in masters.servers]


def nothing_held(masters: Masters, message: Message) -> bool:
    """Whether no master has anybody's hold on a message's key."""
    return not any(holds(masters, message))


def seconds(ask: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.monotonic()
    ask()
    return time.monotonic() - began


def unavailable(ask: Callable[[], object]) -> float:
    """How long it takes until it is said that the store is unavailable."""

    def refused() -> None:
        with pytest.raises(StoreUnavailable):
            ask()

    return seconds(refused)


def ask_aside(ask: Callable[[], T]) -> Callable[[], T | Exception]:
    """Ask in another thread; what this returns waits for the answer."""
    answers: list[T | Exception] = []

    def run() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # noqa: BLE001 - it is the answer
            answers.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def answer() -> T | Exception:
        thread.join(30)
        return answers[0]

    return answer


_LIVES = itertools.count()


def staged(masters: Masters, apps: Sequence[App], scene: Callable[[], T]) -> T:
    """
    Play a scene in which every call must come at its time.

    From the beginning, again and again, until no call was late: what a busy machine does
    is not what the scene is about.

    Raises:
        AssertionError: It was too busy each time.
    """
    for _ in range(10):
        masters.flush()
        for app in apps:
            app.let_go()
            app.reach()
            app.forget_rests()
        with contextlib.suppress(TooBusyError, StoreUnavailable):
            for app in apps:
                live_through(app)
            return scene()
    message = "The machine was too busy each time."
    raise AssertionError(message)


def won(answer: bool | Exception) -> bool:
    """
    Whether a contender got what it asked for.

    Raises:
        Exception: What it raised instead.
    """
    if isinstance(answer, Exception):
        raise answer
    return answer


def live_through(app: App, name: str = "") -> None:
    """Let a message be claimed, started, renewed and finished; nobody else may claim it."""
    rig, name = app.rig, name or f"life{next(_LIVES)}"
    message, nonce = call(name, key=f"{name}()"), f"n-{name}"
    assert rig.claim(message) is None
    refused = rig.claim(call(f"{name}x", key=message.key))
    assert refused is not None
    assert refused.holder.message_id == name
    record = rig.run(message, nonce)
    assert rig.renew(message, nonce, record) == (Renewed.RENEWED, record)
    held = rig.store.holder(message)
    assert held is not None
    assert held.holder.record() == record
    assert rig.finish(message, nonce)
    assert rig.start(message, "again").answer is Answer.ALREADY_COMPLETED
