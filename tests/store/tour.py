"""Every transition once, in an order in which each one changes something."""

from collections.abc import Callable

from tests.store.rig import Rig, call

Step = Callable[[], object]


def tour(rig: Rig, *, own_lease: bool) -> dict[str, Step]:
    """Return the steps by name; each changes data, and they must be taken in order."""
    first = call("m1", own_lease=own_lease)
    retry = call("m1.r1", task_id=first.task_id, own_lease=own_lease)
    other = call("m2", own_lease=own_lease)
    seen = ""

    def start() -> None:
        nonlocal seen
        seen = rig.run(first, "n1")

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
    }
