"""
A broker, two workers and the protocol that they follow, against the real scripts.

Time stands still: leases and claims are long, and one that ends by itself is deleted as
Redis would. The world knows from its own bookkeeping, not from Redis, who must hold a key.
"""

from onceguard.store.contract import Answer, Message, Renewed, Started
from tests.store.mail import Delivery, Entry, Hold, Sent, ask_once_or_twice
from tests.store.rig import Rig, call, token_of

MAX_DELIVERIES = 3
KEYS = ("task(1)", "task(2)")
_TWICE = {"put_off", "finish", "shorten", "abandon", "drop"}


class World:
    """Everything that happens, with the claims of G1 to G7 asserted as it happens."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        rig.raw.flushall()
        self.entries: list[Entry] = []
        self.deliveries: list[Delivery] = []
        self.sent: dict[str, Sent] = {}
        self.refused: list[Sent] = []
        self.holds: dict[str, Hold | None] = dict.fromkeys(KEYS)
        self.waiting: dict[str, Hold | None] = dict.fromkeys(KEYS)
        self.starts = dict.fromkeys(KEYS, 0)
        self.token = dict.fromkeys(KEYS, 0)
        self._number = 0

    def fresh(self, what: str) -> str:
        """Make an id that nothing else has."""
        self._number += 1
        return f"{what}{self._number}"

    @property
    def queue(self) -> list[Entry]:
        """What the broker may hand out now."""
        return [entry for entry in self.entries if entry.queued]

    @property
    def redeliverable(self) -> list[Entry]:
        """What is being worked on and not waiting to be handed out already."""
        return [entry for entry in self.entries if entry.unacked and not entry.queued]

    @property
    def open(self) -> int:
        """How many accepted messages have no outcome yet."""
        return sum(each.accepted and not each.outcomes for each in self.sent.values())

    def bodies(self, *, stalled: bool) -> list[Delivery]:
        """The runs that have, or have lost, their lease; without those being killed."""
        return [
            each
            for each in self.deliveries
            if each.body and each.stalled == stalled and not each.dying
        ]

    # Publishing

    def publish(self, key: str, how: str, *, twice: bool) -> None:
        """Claim, then send, fail to send, or die in between."""
        message = call(self.fresh("m"), key=key)
        held = ask_once_or_twice(lambda: self.rig.claim(message), twice=twice)
        if held is not None:
            hold = self.holds[key]
            assert hold is not None, f"refused by {held}, but the key is free"
            assert hold[:2] == (held.holder.state, held.holder.message_id)
            return
        assert self.holds[key] is None, f"{message} was granted what {self.holds[key]} has"
        sent = self.sent[message.message_id] = Sent(message)
        self.holds[key] = ("claim", message.message_id)
        if how == "sent":
            self.send(sent)
        elif how == "refused by the broker":
            self.refused.append(sent)

    def unclaim(self, sent: Sent, *, twice: bool) -> None:
        """Let a publisher whose send failed, some time ago perhaps, take its claim back."""
        key, mid = sent.message.key, sent.message.message_id
        self.refused.remove(sent)
        ask_once_or_twice(lambda: self.rig.store.unclaim(sent.message), twice=twice)
        if self.holds[key] == ("claim", mid):
            self.holds[key] = None

    def send_unclaimed(self, key: str) -> None:
        """Publish as a canvas member or `send_task` does, whoever has the key."""
        message = call(self.fresh("m"), key=key)
        self.send(self.sent.setdefault(message.message_id, Sent(message)))

    def send(self, sent: Sent, generation: int = 0) -> None:
        """Hand a message to the broker, which thereby accepted it."""
        sent.accepted = True
        self.entries.append(Entry(sent, generation))

    # Delivering

    def deliver(self, entry: Entry, worker: int, *, twice: bool) -> Delivery:
        """Hand a message to a worker, which asks to start it."""
        entry.queued -= 1
        entry.unacked = True
        delivery = Delivery(entry, worker, self.fresh("n"))
        self.deliveries.append(delivery)
        started = ask_once_or_twice(lambda: self._start(delivery), twice=twice)
        {
            Answer.ACQUIRED: self._acquired,
            Answer.ALREADY_COMPLETED: self._already_completed,
            Answer.DUPLICATE_DELIVERY: self._duplicate_delivery,
            Answer.REJECTED: self._rejected,
            Answer.REPLACED: self._replaced,
            Answer.CONFLICT: self._conflict,
        }[started.answer](delivery, started)
        return delivery

    def _start(self, delivery: Delivery) -> Started:
        parent = delivery.sent.parent
        return self.rig.start(
            delivery.message,
            delivery.nonce,
            parent_id=parent.message.message_id if parent else None,
            max_deliveries=MAX_DELIVERIES,
        )

    def _acquired(self, delivery: Delivery, started: Started) -> None:
        sent, key = delivery.sent, delivery.message.key
        beside = [each for each in self.deliveries if each.body and each.message.key == key]
        assert all(each.stalled for each in beside), f"{delivery} runs beside {beside}"
        assert not sent.completed, f"{sent} is completed and runs again"
        assert not sent.superseded, f"{sent} is superseded and runs"
        assert sent.bodies < MAX_DELIVERIES
        sent.bodies += 1
        assert started.held is not None
        delivery.record = started.held.holder.record()
        assert started.held.holder.attempt == started.starts == sent.bodies
        assert token_of(delivery.record) > self.token[key], "the fencing token did not grow"
        self.token[key] = token_of(delivery.record)
        self.starts[key] += 1
        self.holds[key] = delivery.lease
        self._leave_the_queue(delivery.message)
        delivery.body = True
        if sent.parent:
            self._complete(sent.parent, "went on as its retry")

    def _already_completed(self, delivery: Delivery, _: Started) -> None:
        assert delivery.sent.completed
        delivery.steps = ["ack"]

    def _duplicate_delivery(self, delivery: Delivery, started: Started) -> None:
        hold = self.holds[delivery.message.key]
        assert hold is not None
        assert not self._other_task(hold, delivery)
        assert hold[0] == "lease" or self.sent[hold[1]] is not delivery.sent
        self._put_off(delivery, started)

    def _rejected(self, delivery: Delivery, started: Started) -> None:
        assert started.starts == delivery.sent.bodies >= MAX_DELIVERIES
        hold = self.holds[delivery.message.key]
        assert not hold or hold[0] == "claim" or self._other_task(hold, delivery)
        delivery.steps, delivery.outcome = ["finish", "ack"], "rejected"

    def _replaced(self, delivery: Delivery, _: Started) -> None:
        assert delivery.sent.superseded
        delivery.steps = ["drop", "ack"]

    def _conflict(self, delivery: Delivery, started: Started) -> None:
        hold = self.holds[delivery.message.key]
        assert hold is not None
        assert hold[0] == "lease"
        assert self._other_task(hold, delivery)
        waited = started.starts or started.generation or delivery.entry.generation
        if waited or delivery.sent.retries or delivery.message.waits:
            self._put_off(delivery, started)
        else:
            delivery.steps, delivery.outcome = ["finish", "ack"], "overlap_skipped"

    def _other_task(self, hold: Hold, delivery: Delivery) -> bool:
        return self.sent[hold[1]].message.task_id != delivery.message.task_id

    @staticmethod
    def _put_off(delivery: Delivery, started: Started) -> None:
        older = delivery.entry.generation < started.generation
        delivery.steps = ["ack"] if older else ["copy", "put_off", "ack"]

    def drop(self, entry: Entry, *, twice: bool) -> None:
        """Find a message revoked or expired before its start."""
        entry.queued -= 1
        entry.unacked = False
        ask_once_or_twice(lambda: self._drop(entry.sent, "dropped"), twice=twice)

    def _drop(self, sent: Sent, outcome: str) -> None:
        message = sent.message
        self.rig.drop(message)
        if self.holds[message.key] == ("claim", message.message_id):
            self.holds[message.key] = None
        self._leave_the_queue(message)
        self._complete(sent, outcome)

    def _leave_the_queue(self, message: Message) -> None:
        """Free the place beside the lock of a tick that waited for a run's end."""
        if message.waits and self.waiting[message.key] == ("claim", message.message_id):
            self.waiting[message.key] = None

    # Going on and ending

    def end(self, delivery: Delivery, how: str) -> None:
        """Let a body come to its end in its own way."""
        sent = delivery.sent
        delivery.outcome = how
        if how == "time limit":
            delivery.dying, delivery.steps = True, ["shorten", "ack", "die"]
            return
        delivery.body, delivery.steps = False, ["finish", "ack"]
        if how == "retry":
            mid = f"{sent.message.message_id.split('.')[0]}.r{sent.retries + 1}"
            message = call(mid, key=sent.message.key, task_id=sent.message.task_id)
            again = Sent(message, parent=sent, retries=sent.retries + 1)
            delivery.retry = self.sent.setdefault(mid, again)
            self.send(delivery.retry)

    def go_on(self, delivery: Delivery, *, twice: bool = False, fails: bool = False) -> None:
        """Take the next step of a delivery."""
        step = delivery.steps.pop(0)
        if step == "put_off" and fails:
            return  # the store did not answer: the copy is under way all the same
        ask_once_or_twice(
            lambda: getattr(self, f"_do_{step}")(delivery), twice=twice and step in _TWICE
        )
        if not delivery.steps and not delivery.body:
            self.deliveries.remove(delivery)

    def _do_ack(self, delivery: Delivery) -> None:
        delivery.entry.unacked = False

    def _do_copy(self, delivery: Delivery) -> None:
        self.send(delivery.sent, delivery.entry.generation + 1)

    def _do_put_off(self, delivery: Delivery) -> None:
        generation = delivery.entry.generation + 1
        assert self.rig.put_off(delivery.message, generation) >= generation

    def _do_drop(self, delivery: Delivery) -> None:
        self._drop(delivery.sent, "replaced")

    def _do_finish(self, delivery: Delivery) -> None:
        key, mid, retry = delivery.message.key, delivery.message.message_id, delivery.retry
        retry_id = retry.message.message_id if retry else None
        self.rig.finish(delivery.message, delivery.nonce, retry=retry_id)
        if self.holds[key] in {delivery.lease, ("claim", mid)}:
            self.holds[key] = None
        if retry and delivery.sent.superseded and not (retry.bodies or retry.completed):
            retry.superseded = True
        elif retry and self.holds[key] is None and not retry.completed:
            claimed = self.rig.held(delivery.message) == f"claim {retry_id}"
            assert claimed or retry.bodies, "the key was not passed on"
            self.holds[key] = ("claim", str(retry_id)) if claimed else None
        self._leave_the_queue(delivery.message)
        self._complete(delivery.sent, delivery.outcome)

    def _do_shorten(self, delivery: Delivery) -> None:
        self.rig.shorten(delivery.message, delivery.nonce)
        self._leave_the_queue(delivery.message)
        self._complete(delivery.sent, delivery.outcome)

    def _do_die(self, delivery: Delivery) -> None:
        delivery.body = False

    def _do_abandon(self, delivery: Delivery) -> None:
        key = delivery.message.key
        self.rig.abandon(delivery.message, delivery.nonce)
        if self.holds[key] == delivery.lease:
            claim = ("claim", delivery.message.message_id)
            self.holds[key] = None if delivery.sent.completed else claim

    def _do_requeue(self, delivery: Delivery) -> None:
        if delivery.entry.unacked:
            delivery.entry.unacked = False
            delivery.entry.queued += 1

    @staticmethod
    def _complete(sent: Sent, outcome: str) -> None:
        sent.completed = True
        sent.outcomes.append(outcome)

    # Accidents

    def redeliver(self, entry: Entry) -> None:
        """Hand a message out once more while it is still being worked on."""
        entry.queued += 1

    def kill_child(self, delivery: Delivery) -> None:
        """Let a pool process die; the main process notices."""
        delivery.body = delivery.dying = False
        delivery.steps = ["abandon", "requeue"]

    def kill_worker(self, worker: int) -> None:
        """Let a whole worker die; the broker gives out again what it had not acked."""
        for delivery in [each for each in self.deliveries if each.worker == worker]:
            self._do_requeue(delivery)
            self.deliveries.remove(delivery)

    def expire(self, key: str) -> None:
        """End a hold by itself; the body that has it, if any, has stalled for too long."""
        for delivery in self.deliveries:
            if delivery.body and not delivery.stalled and self.holds[key] == delivery.lease:
                delivery.stalled, delivery.starts_then = True, self.starts[key]
        message = call("-", key=key)
        self.rig.end_by_itself(message)
        self.holds[key] = None

    def may_expire(self, key: str) -> bool:
        """Whether somebody has the key who can lose it; a dying process is dead in time."""
        dying = [each.lease for each in self.deliveries if each.body and each.dying]
        return self.holds[key] is not None and self.holds[key] not in dying

    def renew(self, delivery: Delivery, *, twice: bool) -> None:
        """Renew, or come back from a stall and ask."""
        key, record = delivery.message.key, delivery.record
        answer, _ = ask_once_or_twice(
            lambda: self.rig.renew(delivery.message, delivery.nonce, record), twice=False
        )
        kept = Renewed.SUPERSEDED if delivery.sent.superseded else Renewed.RENEWED
        if twice:
            again, _ = self.rig.renew(delivery.message, delivery.nonce, record)
            assert again is answer or (answer, again) == (Renewed.RETAKEN, kept)
        if not delivery.stalled:
            assert answer is kept
            return
        over = delivery.sent.completed or self.starts[key] > delivery.starts_then
        retaken = Renewed.SUPERSEDED if delivery.sent.superseded else Renewed.RETAKEN
        assert (answer is retaken) == (not over), f"{answer} of {delivery}"
        if answer is retaken:
            delivery.stalled = False
            self.holds[key] = delivery.lease
