"""The Lua scripts of the Redis store, read from their files once."""

from __future__ import annotations

from hashlib import sha1
from importlib import resources
from typing import TYPE_CHECKING

from onceguard.store.connect import pack

if TYPE_CHECKING:
    from collections.abc import Sequence


class Script:
    """
    A script, and the two ways to call it.

    Args:
        name: Its file in ``lua/``, without the ending.
    """

    __slots__ = ("_by_digest", "_by_source", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        source = (resources.files("onceguard.store") / "lua" / f"{name}.lua").read_bytes()
        self._by_digest = pack("EVALSHA", sha1(source, usedforsecurity=False).hexdigest())
        self._by_source = pack("EVAL", source)

    def call(self, words: Words) -> bytes:
        """Pack a call by the SHA-1 that Redis knows the script by."""
        return b"*%d\r\n%b%b" % (words.count + 2, self._by_digest, words.packed)

    def load_and_call(self, words: Words) -> bytes:
        """Pack a call with the source, for a server that does not know it yet."""
        return b"*%d\r\n%b%b" % (words.count + 2, self._by_source, words.packed)


class Words:
    """
    The keys and arguments of a call, packed once.

    Args:
        keys: KEYS of the script, which share a hash tag.
        args: ARGV of the script.
    """

    __slots__ = ("count", "packed")

    def __init__(self, keys: Sequence[str], args: Sequence[str | int]) -> None:
        self.count = len(keys) + len(args) + 1
        self.packed = pack(len(keys), *keys, *args)


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
