"""Every transition once, in an order in which each one changes something."""

from collections.abc import Callable
from dataclasses import replace

from onceguard.store.scripts import PROBE, Call
from tests.store.rig import Rig, call
from tests.store.ticking import ENTRY, at, sent, tick

Step = Callable[[], object]


def probe(rig: Rig) -> None:
    """Do what is done when a worker starts."""
    rig.store._server.run(Call(PROBE, [rig.names(call("m1")).probe]))


def tour(rig: Rig, *, own_lease: bool) -> dict[str, Step]:
    """Return the steps by name; each changes data, and they must be taken in order."""
    first = call("m1", own_lease=own_lease)
    retry = call("m1.r1", task_id=first.task_id, own_lease=own_lease)
    other = call("m2", own_lease=own_lease)
    due = [tick(n, policy="cancel_other", own_lease=own_lease) for n in range(4)]
    waiting = replace(due[2].message, waits=True)
    seen = ""

    def start() -> None:
        nonlocal seen
        seen = rig.run(first, "n1")

    def buffer() -> None:
        sent(rig, due[2], rig.store.tick(due[2]))

    def fail_to_send() -> None:
        rig.store.unsend(due[3], rig.store.tick(due[3]))

    return {
        "claim": lambda: rig.claim(first),
        "unclaim": lambda: rig.store.unclaim(first),
        "claim again": lambda: rig.claim(first),
        "refuse a claim": lambda: rig.claim(other),
        "start": start,
        "renew": lambda: rig.renew(first, "n1", seen),
        "lease ends by itself": lambda: rig.end_by_itself(first),
        "retake": lambda: rig.renew(first, "n1", seen),
        "lease ends by itself again": lambda: rig.end_by_itself(first),
        "start over a dead lease": lambda: rig.start(first, "n2"),
        "refuse a start": lambda: rig.start(first, "n3"),
        "put off": lambda: rig.put_off(first, 1),
        "abandon": lambda: rig.abandon(first, "n2"),
        "start once more": lambda: rig.start(first, "n4"),
        "finish with a retry": lambda: rig.finish(first, "n4", retry="m1.r1"),
        "start the retry": lambda: rig.start(retry, "n5", parent_id="m1"),
        "shorten": lambda: rig.shorten(retry, "n5"),
        "finish": lambda: rig.finish(retry, "n5"),
        "claim another": lambda: rig.claim(other),
        "drop": lambda: rig.drop(other),
        "forget": lambda: rig.store.forget([first], after=1.0),
        "holder": lambda: rig.store.holder(first),
        "list": lambda: rig.claim(other) or rig.store.holders(),
        "drop what was listed": lambda: rig.drop(other),
        "tick": lambda: rig.store.tick(due[0]),
        "tick is sent": lambda: sent(rig, due[0], rig.store.tick(due[0])),
        "start the tick": lambda: rig.start(due[0].message, "n6"),
        "miss a tick": lambda: rig.store.tick(replace(due[1], slot=at(1.0), grace=1.0)),
        "tick while one runs": buffer,
        "put the tick off": lambda: rig.put_off(waiting, 1),
        "take a tick back": fail_to_send,
        "probe": lambda: probe(rig),
        "last ticks": lambda: rig.store.last_ticks([ENTRY]),
        "finish the tick": lambda: rig.finish(due[0].message, "n6"),
        "start the tick that waits": lambda: rig.run(waiting, "n7"),
        "drop the tick that waits": lambda: rig.drop(waiting),
    }
