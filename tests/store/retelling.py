"""A TCP proxy that changes words in a server's replies, for words of the same length."""

from tests.store.forwarding import ForwardingProxy


class RetellingProxy(ForwardingProxy):
    """
    Forward to a server on this host, and say one thing for another.

    Args:
        port: The server's.
        says: What it says.
        instead: What is passed on instead, padded with blanks to the same length.
    """

    def __init__(self, port: int, says: bytes, instead: bytes) -> None:
        assert len(instead) <= len(says)
        self._says, self._instead = says, instead.ljust(len(says))
        super().__init__(port)

    def answer(self, asked: bytes, answer: bytes) -> bytes | None:
        """The same, retold."""
        del asked
        return answer.replace(self._says, self._instead)
