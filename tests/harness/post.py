"""Every message that reaches the broker, as its own server saw it come in."""

import base64
import contextlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis

from tests.harness.redis_server import RedisServer
from tests.harness.waiting import PATIENCE, eventually


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One message of a task, at the moment when it was put into the queue."""

    at: float
    """By the server's clock, unix seconds."""

    sender: int
    """Process id."""

    task_id: str
    args: list[Any]
    headers: dict[str, Any]

    @property
    def name(self) -> str:
        """The first argument."""
        return str(self.args[0])

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self.headers["task"])

    @property
    def due_at(self) -> float:
        """When its tick was due, as the library's header says."""
        return float(self.headers["onceguard"]["at"])


class Post:
    """
    Redis' MONITOR: no process has to stay alive, or to say the truth, to be witnessed.

    It sees messages that a worker takes at once, and tells the time of one clock.
    """

    def __init__(self, server: RedisServer, queue: str = "celery") -> None:
        self._letters: list[Letter] = []
        self._claims: list[float] = []
        self._server, self._queue = server, queue
        self._client = redis.Redis(
            unix_socket_path=str(server.socket), decode_responses=True, socket_timeout=None
        )
        self._watching = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="post")
        self._thread.start()
        assert self._watching.wait(PATIENCE), "Redis did not answer MONITOR."

    def letters(self, name: str | None = None) -> list[Letter]:
        """Messages in the order in which they came, all or those of a name."""
        return [each for each in list(self._letters) if name in (None, each.name)]

    def claims(self) -> list[float]:
        """
        When ticks were claimed that are to be sent, of all entries together.

        If this server is the lock server, too. Messages may come late on a loaded machine,
        and close to the next one; claims are made by the server's clock.
        """
        return list(self._claims)

    def await_letters(self, number: int, name: str | None = None) -> list[Letter]:
        """Wait until so many came; returns all that came."""
        what = f"{number} messages came"
        return eventually(lambda: (got := self.letters(name))[number - 1 :] and got, what)

    def await_next(self, name: str | None = None) -> Letter:
        """Wait for one more message than there are now."""
        number = len(self.letters(name))
        return self.await_letters(number + 1, name)[number]

    def close(self) -> None:
        """Look no longer."""
        with self._server.client() as client:
            client.echo(END)
        self._thread.join(PATIENCE)
        self._client.close()

    def _watch(self) -> None:
        with self._client.monitor() as monitor:  # type: ignore[no-untyped-call]
            self._watching.set()
            for seen in monitor.listen():
                words = seen["command"].split(" ", 2)
                if words[0].upper() == "ECHO" and words[1] == END:
                    return
                if words[0].upper() == "LPUSH" and words[1] == self._queue:
                    self._letters.append(read(seen["time"], words[2]))
                if words[0].upper() == "SET" and (claim := CLAIM.match(" ".join(words[1:]))):
                    self._claims.append(int(claim[1]) / 1000)


END = "the-post-closes"

CLAIM = re.compile(r"once1:\S+:tick:\S+ \d+ (\d+) 0 \S+ \[")
"""State of an entry after a tick that is to be sent: slot, when it was claimed, no skips."""


def read(at: float, text: str) -> Letter:
    """Read a message as kombu writes it, escaped as MONITOR shows it."""
    message = json.loads(re.sub(r"\\\\", r"\\", text))
    body = json.loads(base64.b64decode(message["body"]))
    headers = message["headers"]
    return Letter(
        at=at,
        sender=int(re.sub(r"gen(\d+)@.*", r"\1", headers["origin"])),
        task_id=headers["id"],
        args=body[0],
        headers=headers,
    )


@contextlib.contextmanager
def watched(server: RedisServer) -> Iterator[Post]:
    """Look at what comes into the queue of a server."""
    post = Post(server)
    try:
        yield post
    finally:
        post.close()
