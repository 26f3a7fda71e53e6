"""The Lua scripts of the Redis store, read from their files once."""

from __future__ import annotations

from hashlib import sha1
from importlib import resources

from onceguard.store.connect import pack


class Script:
    """
    A script, and the two ways to call it.

    Args:
        name: Its file in ``lua/``, without the ending.

    Attributes:
        by_digest: Packed ``EVALSHA`` with the SHA-1 that Redis knows it by.
        by_source: Packed ``EVAL`` with its source, for a server that does not
            know it yet.
    """

    __slots__ = ("by_digest", "by_source", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        source = (resources.files("onceguard.store") / "lua" / f"{name}.lua").read_bytes()
        self.by_digest = pack("EVALSHA", sha1(source, usedforsecurity=False).hexdigest())
        self.by_source = pack("EVAL", source)


CLAIM = Script("claim")
UNCLAIM = Script("unclaim")
START = Script("start")
RENEW = Script("renew")
FINISH = Script("finish")
ABANDON = Script("abandon")
SHORTEN = Script("shorten")
PUT_OFF = Script("put_off")
DROP = Script("drop")
FORGET = Script("forget")
HOLDER = Script("holder")
