"""The rules of listing what is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onceguard.testing.case import SCOPES

if TYPE_CHECKING:
    from onceguard.testing.case import Case

_MANY = 40


class Listing:
    """What operators see."""

    def test_claims_and_leases_of_all_partitions_are_listed(self, case: Case) -> None:
        """With their holders, and how long each has left, whoever took them."""
        claims = [case.message(f"c{n}", key=f"{case.key}c{n}") for n in range(_MANY)]
        leases = [case.message(f"l{n}", key=f"{case.key}l{n}") for n in range(_MANY)]
        for message in claims:
            assert case.claim(message) is None
        records = {message.key: case.run(message, "n1") for message in leases}
        found = {each.key: each.held for each in case.elsewhere.store.holders()}
        for message in claims:
            held = found[message.key]
            assert (held.holder.state, held.holder.message_id) == ("claim", message.message_id)
            assert case.is_about(held.time_left, case.long)
        for key, record in records.items():
            assert found[key].holder.record() == record

    @SCOPES
    def test_what_is_free_is_not_listed(self, case: Case, own_lease: bool) -> None:
        """A claim that was taken back, a run that ended, and lives that came to their end."""
        ended, gone, lapsed = (
            case.message(name, key=f"{case.key}{name}", own_lease=own_lease)
            for name in ("ended", "gone", "lapsed")
        )
        case.run(ended, "n1")
        case.finish(ended, "n1")
        case.claim(gone)
        case.store.unclaim(gone)
        case.lapse(lapsed, "n1")
        keys = {each.key for each in case.store.holders()}
        assert keys.isdisjoint({ended.key, gone.key, lapsed.key})

    @SCOPES
    def test_a_run_is_listed_once(self, case: Case, own_lease: bool) -> None:
        """Its claim has become its lease; under until_executing another call may be queued."""
        message = case.message("m1", own_lease=own_lease)
        case.claim(message)
        record = case.run(message, "n1")
        mine = [each for each in case.store.holders() if each.key == case.key]
        assert [each.held.holder.record() for each in mine] == [record]
