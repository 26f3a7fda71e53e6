"""What a claim costs in the server's memory (DESIGN 9)."""

from collections.abc import Callable

from onceguard.rules.messages import new_message_id
from onceguard.store.contract import Message
from tests.store.rig import Rig

# Seen: 384 at 30,000 and at 60,000, 389 at 100,000; 404 at 10,000, where the server's
# tables of keys are half empty.
CLAIMS = 30_000
MOST = 400


def test_a_claim_with_its_share_of_the_index_fits_in_400_bytes(
    rig: Rig, record_property: Callable[[str, object], None]
) -> None:
    """A million queued calls must fit beside the broker: 400 MB, and not a gigabyte."""
    rig.claim(_sync(0))
    rig.raw.flushall()
    before = rig.raw.info("memory")["used_memory"]
    for number in range(CLAIMS):
        rig.claim(_sync(123_456 + number))
    each = (rig.raw.info("memory")["used_memory"] - before) / CLAIMS
    record_property("bytes_for_a_claim", round(each))
    print(f"bytes in Redis for a claim: {each:.0f}")
    assert each <= MOST


def _sync(user_id: int) -> Message:
    return Message(
        key=f"proj.tasks.sync_user(user_id={user_id})",
        message_id=new_message_id(),
        task_id="4fda2b0c-8d5b-4c2f-9c36-0c2f6a1f6d11",
        own_lease=False,
        where="3f2a9c1b7d4e:17",
    )
