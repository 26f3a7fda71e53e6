"""The header: what is sent is what is read, by every serializer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.serialization import dumps, loads

from onceguard.rules.header import NAME, Header, load, switched_off

TEXT = st.text(min_size=1, max_size=20)
SECONDS = st.floats(0, 4e9, allow_nan=False)
HEADERS = st.builds(
    Header,
    message_id=TEXT,
    key=TEXT,
    generation=st.integers(0, 10**6),
    parent_id=st.none() | TEXT,
    delay=SECONDS,
    overrides=st.dictionaries(TEXT, st.text() | SECONDS | st.integers(0, 9), max_size=3),
    scheduled_at=st.none() | SECONDS,
    start_by=st.none() | SECONDS,
    waits=st.booleans(),
    nonce=st.just(""),
)


def travelled(wire: object, serializer: str) -> object:
    content_type, encoding, body = dumps(wire, serializer)  # type: ignore[no-untyped-call]
    return loads(body, content_type, encoding, accept=[content_type])  # type: ignore[no-untyped-call]


@given(header=HEADERS)
def test_a_header_is_read_as_it_was_sent(header: Header) -> None:
    """Each field decides something at the worker."""
    assert load(travelled(header.dump(), "json")) == header


@pytest.mark.parametrize("serializer", ["json", "yaml", "msgpack", "pickle"])
def test_every_serializer_carries_what_beat_says(serializer: str) -> None:
    """When the tick was due, until when it may start, and that it waits."""
    header = Header(
        message_id="m", key="k", scheduled_at=1.5e9, start_by=1.5e9 + 0.25, waits=True
    )
    wire = header.dump()
    assert wire == {"id": "m", "key": "k", "at": 1.5e9, "by": 1.5e9 + 0.25, "waits": True}
    assert load(travelled(wire, serializer)) == header


def test_an_arrived_header_goes_to_the_pool_process_with_its_arrival() -> None:
    """Main process and pool process must name the same delivery."""
    header = Header(message_id="m", key="k", nonce="n", content_type="application/json")
    assert load(header.dump()) == header


def test_what_is_not_said_is_not_sent() -> None:
    """The header is in each message; older workers know the short form."""
    assert Header(message_id="m", key="k").dump() == {"id": "m", "key": "k"}


def test_the_first_of_all_instants_is_sent() -> None:
    """Zero is an instant, and not the same as none."""
    header = Header(message_id="m", key="k", scheduled_at=0.0, start_by=0.0)
    assert load(header.dump()) == header


@pytest.mark.parametrize(
    "wire",
    [
        None,
        True,
        "m",
        {},
        {"id": "m"},
        {"key": "k"},
        {"id": "", "key": "k"},
        {"id": "m", "key": 7},
        {"off": True},
    ],
)
def test_what_is_no_header_of_ours_is_none(wire: object) -> None:
    """A message from elsewhere is identified by its task's name and arguments."""
    assert load(wire) is None


@pytest.mark.parametrize(
    "said",
    [{"at": "1.5"}, {"by": "soon"}, {"at": None}, {"waits": "yes"}, {"waits": 1}],
)
def test_what_beat_never_wrote_is_left_out(said: dict[str, Any]) -> None:
    """A worker must not fail at a header that another tool has made."""
    assert load({"id": "m", "key": "k", **said}) == Header(message_id="m", key="k")


def test_a_header_may_only_say_that_guarding_is_off() -> None:
    """So that a retry of an unguarded call is not guarded."""
    assert switched_off({"off": True})
    assert not switched_off({"off": 1})
    assert not switched_off(Header(message_id="m", key="k").dump())
    assert not switched_off(None)
    assert NAME.isidentifier()
