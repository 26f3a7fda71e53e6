"""Several beats of one app at once, of which any may be killed or stopped at any time."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.harness.beat import Beat
from tests.harness.pace import duplicates
from tests.harness.post import Letter, Post, watched
from tests.harness.site import Site, redis_site
from tests.harness.waiting import eventually

Clock = dict[str, str]
"""Environment of a beat whose clock is wrong; an empty one if it is right."""

RIGHT: Sequence[Clock] = ({}, {}, {})
"""Three beats whose clocks agree."""


class Crowd:
    """
    As many beats as there are clocks; whoever is killed is started again.

    Every other one comes back on an empty disk, as containers do; the others find the
    schedule file of the dead one, which says when it sent first, not when it sent last.
    """

    def __init__(self, site: Site, post: Post, clocks: Sequence[Clock], **options: Any) -> None:
        """
        Start them.

        Args:
            site: Where.
            post: What they send.
            clocks: One for each beat.
            options: As `Site.spawn_beat`.
        """
        self._site, self._post, self._options = site, post, options
        self._disks = itertools.cycle(["empty", "old"])
        self._clocks: dict[Beat, Clock] = {}
        self._of_all: dict[int, Clock] = {}
        for clock in clocks:
            self.spawn(clock)

    @property
    def beats(self) -> list[Beat]:
        """Those that live, the oldest first."""
        return list(self._clocks)

    def await_ready(self) -> None:
        """Wait until all of them tick."""
        for beat in self.beats:
            beat.await_ready()

    def clock_of(self, letter: Letter) -> Clock:
        """By which clock a message was sent, by whomever of the living and the dead."""
        return self._of_all[letter.sender]

    def sender_of(self, letter: Letter) -> Beat | None:
        """Who sent a message; None if it is one of the dead."""
        return next((beat for beat in self.beats if beat.pid == letter.sender), None)

    def await_sender(self) -> Beat:
        """Wait for the next message that one of the living sends, and tell who that is."""
        seen = len(self._post.letters())

        def sender() -> Beat | None:
            return next(filter(None, map(self.sender_of, self._post.letters()[seen:])), None)

        beat = eventually(sender, "one of the beats sent a message")
        assert beat is not None
        return beat

    def kill(self, beat: Beat) -> Beat:
        """Kill a beat with SIGKILL, and start another in its place without waiting for it."""
        store = beat.store if next(self._disks) == "old" else None
        return self.spawn(self.lose(beat), store=store)

    def lose(self, beat: Beat) -> Clock:
        """Kill a beat with SIGKILL; returns its clock."""
        beat.kill_main()
        tidy(beat.pid)
        return self._clocks.pop(beat)

    def kill_senders(self, times: int) -> None:
        """
        Kill whoever sent last, so often.

        Two in a row without waiting: then one beat of three is left while the others
        come up, and it is the one that sends.
        """
        for done in range(0, times, 2):
            for _ in range(min(2, times - done)):
                self.kill(self.stop_sender())
            self.await_ready()

    def stop_sender(self) -> Beat:
        """
        Stop whoever sent last, between two ticks.

        One that dies between claiming a tick and sending it loses that tick, as the
        guarantee says; on a loaded machine that is no rare moment.
        """
        for _ in range(20):
            beat = self.await_sender()
            beat.freeze()
            if not self._in_hand():
                break
            beat.thaw()
        return beat

    def _in_hand(self) -> bool:
        """Whether a tick was claimed after the last message came."""
        with self._site.server.client() as client:
            states = [str(client.get(key)) for key in client.scan_iter("once1:*:tick:*")]
        fields = [state.split(" ", 4) for state in states]
        claims = [int(each[1]) / 1000 for each in fields if len(each) > 4 and each[2] == "0"]
        return max(claims, default=0.0) > self._post.letters()[-1].at

    def close(self) -> None:
        """End them."""
        for beat in self.beats:
            beat.close()
            tidy(beat.pid)

    def spawn(self, clock: Clock, **options: Any) -> Beat:
        """Start one more, without waiting for it."""
        beat = self._site.spawn_beat(environment=clock, **self._options, **options)
        self._clocks[beat] = self._of_all[beat.pid] = clock
        return beat


@contextlib.contextmanager
def crowd_of(
    site: Site, post: Post, clocks: Sequence[Clock] = RIGHT, **options: Any
) -> Iterator[Crowd]:
    """Beats that tick, all of them; arguments as `Crowd`."""
    crowd = Crowd(site, post, clocks, **options)
    try:
        crowd.await_ready()
        yield crowd
    finally:
        crowd.close()


@contextlib.contextmanager
def two_with_one_lock_server(name: str, url: Any) -> Iterator[tuple[Site, Post, Beat]]:
    """
    Two beats and a worker, a guarded entry and a bare one, both due every second.

    Args:
        name: Of the guarded entry and of its runs.
        url: Of the lock server, which is not the broker.

    Yields:
        Where they are, what they send, and one that may be killed.

    Raises:
        AssertionError: In the end a tick was sent twice, or two runs overlapped.
    """
    entries = {
        name: {"task": "work", "args": [name], "schedule": 1.0, "once": True},
        f"{name}-bare": {"task": "plain", "args": [f"{name}-bare"], "schedule": 1.0},
    }
    with (
        redis_site(conf={"once_url": url}, schedule=entries) as site,
        watched(site.server) as post,
    ):
        site.start()
        one, _ = site.beat(), site.beat()
        yield site, post, one
        letters = post.letters()
        for task in ("work", "plain"):
            assert duplicates([each for each in letters if each.task == task], 1.0) == 0
        assert not site.ledger.overlaps(name)


def tidy(pid: int) -> None:
    """Remove what libfaketime leaves in memory when its process is killed."""
    for kind in ("faketime_shm", "sem.faketime_sem"):
        Path(f"/dev/shm/{kind}_{pid}").unlink(missing_ok=True)  # noqa: S108  not ours to choose
