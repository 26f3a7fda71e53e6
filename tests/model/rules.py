"""
The protocol's rules as switches, and the bounds of a search.

A rule set to another value than its default is a mutation: the protocol with that
rule left out. test_mutations.py asserts that the search then finds a
counterexample, which is how we know that the model can fail at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from tests.model.state import CLAIM_END, DEATH, LOST_REPLY, REDELIVERY, STALL

USUAL: Final = frozenset({REDELIVERY, DEATH, LOST_REPLY, STALL, CLAIM_END})
Scope = Literal["until_executed", "until_executing", "while_executing"]
Transport = Literal["redis", "rabbitmq"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """
    DESIGN section 6, rule by rule, and the choices that its rules leave open.

    Attributes:
        copies: How copies of a message find that a newer one is under way (rule 1).
            "marked": the record names the newest copy, any other is acked.
        raised_not_set: A late raise does not lower the record's generation (rule 1).
        copy_before_ack: A copy is published before its delivery is acked.
        claim_refuses: A claim refuses another message's start (against rule 2).
        started_waits: A message with attempts is never skipped (rule 3).
        copy_waits: Nor is one that was put off (rule 3).
        retry_waits: Nor is a retry (rule 3).
        same_task_waits: A lease of another message of the same task: put off.
        same_task_claim_waits: So is a claim of one. (Refuted: see FINDINGS.)
        retry_id_follows: A retry's id follows from its parent's (rule 4).
        retry_start_records: A retry's start records its parent (rule 4).
        retry_end_records: The end of a run that retried records it (rule 4).
        runs_by_task: Under until_executing, a retry shares its parent's run lease.
        retry_claims: That end hands the lock to the retry's claim.
        loser_records: A holder that lost its lease records completion (rule 5).
        take_up_checks_message: No take-up after another start of the message (rule 6).
        take_up_checks_key: No take-up after another start of the key ("past").
        claim_keeps_index: A claim leaves it listed that a lease ended by itself, so
            that the start after it knows.
        failure_first: Giving up: FAILURE is stored, then recorded (rule 7).
        supersede_after_send: `replace` marks the older message last (rule 8).
        abandon: A child's death turns its lease into a claim (rule 9).
        abandon_compares_nonce: Only its own lease (rule 9).
        finish_compares: What finish compares before it frees (rule 9).
        result_first: The result is stored, then completion recorded (rule 10).
        ack_last: Then the message is acked (rule 10).
        finish_ends_claim: finish ends a claim of its own message (rule 10).
        drop_records: Revoked before start is recorded as completed (rule 10).
        drop_compares: It frees a claim of its own only (rule 10).
        drop_told_first: It is told before it is recorded.
        skip_spares_started: A skip is recorded only if the message was not started
            since: a skip holds no lease, its redelivery may be running.
        abandon_spares_done: abandon leaves no claim for a completed message.
        retry_claim_needs_lease: finish claims for the retry only if it had the lease.
        retry_claim_spares_done: And only if the retry is not completed already.
        claim_idempotent: A claim of the same message is a success (lost reply).
        start_idempotent: So is a lease of the same delivery.
        forget: Which completions are forgotten after the ack: none, those of any
            delivery never redelivered or put off, or of such that are no retries.
    """

    copies: Literal["generations", "marked", "unordered"] = "generations"
    raised_not_set: bool = True
    copy_before_ack: bool = True
    claim_refuses: bool = False
    started_waits: bool = True
    copy_waits: bool = True
    retry_waits: bool = True
    same_task_waits: bool = True
    same_task_claim_waits: bool = False
    retry_id_follows: bool = True
    retry_start_records: bool = True
    retry_end_records: bool = True
    runs_by_task: bool = True
    retry_claims: bool = True
    loser_records: bool = True
    take_up_checks_message: bool = True
    take_up_checks_key: bool = True
    claim_keeps_index: bool = True
    failure_first: bool = True
    supersede_after_send: bool = True
    abandon: bool = True
    abandon_compares_nonce: bool = True
    finish_compares: Literal["nonce", "message", "task"] = "nonce"
    result_first: bool = True
    ack_last: bool = True
    finish_ends_claim: bool = True
    drop_records: bool = True
    drop_compares: bool = True
    drop_told_first: bool = True
    skip_spares_started: bool = True
    abandon_spares_done: bool = True
    retry_claim_needs_lease: bool = True
    retry_claim_spares_done: bool = True
    claim_idempotent: bool = True
    start_idempotent: bool = True
    forget: Literal["none", "any", "originals"] = "none"


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """
    How far a search goes.

    Attributes:
        scope: The option of that name.
        transport: "redis": a redelivery shares its delivery's tag, and the first
            ack is for both. "rabbitmq": each delivery has an ack of its own.
        calls: How many of the two calls are made.
        guarded: Which of the two calls claim before they are published. The other
            is a canvas member, published whatever holds the key.
        retries: Whether the first call may ask for a retry.
        replace: The second call is published with on_conflict="replace".
        reschedule: on_run_conflict="reschedule" instead of "skip".
        deliveries: How many may be under way in workers at a time.
        generations: Put-offs of one line of copies. A delivery beyond waits until
            its start would get another answer: its countdown was long enough.
        max_deliveries: The option of that name.
        faults: How many may happen, of any of the kinds.
        kinds: Which may. REDELIVERY: while a delivery of the entry is alive (one
            whose worker is gone is redelivered without counting). DEATH: of a
            publisher, a pool process, a worker. LOST_REPLY: applied, reported as
            failed, and sent again. STORE_DOWN: a call of the store that was not
            applied and is given up. STALL: a live holder's lease ends (a dead one's
            ends without counting). CLAIM_END: a claim ends by itself. WIPE: the
            store loses everything. REVOKE: a delivery is found revoked or expired
            before its start.
        orphans: A pool process may outlive its main process.
    """

    scope: Scope = "until_executed"
    transport: Transport = "redis"
    calls: int = 2
    guarded: tuple[bool, bool] = (True, False)
    retries: bool = True
    replace: bool = False
    reschedule: bool = False
    deliveries: int = 2
    generations: int = 2
    max_deliveries: int = 3
    faults: int = 2
    kinds: frozenset[int] = USUAL
    orphans: bool = False


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A protocol and the world that it is put into."""

    rules: Rules = field(default_factory=Rules)
    bounds: Bounds = field(default_factory=Bounds)
