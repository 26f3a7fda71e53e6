"""The Lua scripts of the Redis store, read from their files once."""

from __future__ import annotations

from hashlib import sha1
from importlib import resources
from typing import TYPE_CHECKING

from onceguard.store.connect import pack

if TYPE_CHECKING:
    from collections.abc import Sequence


def _read(name: str) -> bytes:
    return (resources.files("onceguard.store") / "lua" / f"{name}.lua").read_bytes()


class Script:
    """
    A script, and the two ways to name it in a call.

    Args:
        name: Its file in ``lua/``, without the ending.
        writes: Whether it may change anything, which replicas must hear of.
        after: The files of what stands before it.
    """

    __slots__ = ("by_digest", "by_source", "name", "source", "writes")

    def __init__(self, name: str, *, writes: bool = True, after: Sequence[str] = ()) -> None:
        self.name = name
        self.writes = writes
        self.source = b"".join(map(_read, (*after, name)))
        digest = sha1(self.source, usedforsecurity=False).hexdigest()
        self.by_digest = pack("EVALSHA", digest)
        self.by_source = pack("EVAL", self.source)


class Call:
    """
    One call of a script.

    Args:
        script: What is called.
        keys: Its KEYS, which share a hash tag.
        args: Its ARGV.
    """

    __slots__ = ("_words", "args", "keys", "script")

    def __init__(
        self, script: Script, keys: Sequence[str], args: Sequence[str | int] = ()
    ) -> None:
        self.script = script
        self.keys = keys
        self.args = args
        self._words = b""

    def packed(self) -> bytes:
        """Pack it by the SHA-1 that Redis knows the script by."""
        return self._pack(self.script.by_digest)

    def packed_with_source(self) -> bytes:
        """Pack it with the source, for a server that does not know the script yet."""
        return self._pack(self.script.by_source)

    def _pack(self, head: bytes) -> bytes:
        keys, args = self.keys, self.args
        self._words = self._words or pack(len(keys), *keys, *args)
        return b"*%d\r\n%b%b" % (len(keys) + len(args) + 3, head, self._words)


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
HOLDER = Script("holder", writes=False)
TICK = Script("tick")
SENT = Script("sent")
UNSEND = Script("unsend")
LAST_TICKS = Script("last_ticks", writes=False)
PROBE = Script("probe")
LISTED = Script("listed", writes=False)
LOOK = Script("look")
