"""A TCP proxy that swallows the reply of one command: done, but nobody hears of it."""

from tests.store.forwarding import ForwardingProxy


class DroppingProxy(ForwardingProxy):
    """
    Forward to a server on this host; drop the reply of the first command that holds a word.

    The command is forwarded and its reply awaited; then both connections are closed.
    Everything else passes.
    """

    def __init__(self, port: int, word: bytes = b"EVALSHA") -> None:
        self._word = word
        self._armed = True
        self.dropped = 0
        super().__init__(port)

    def answer(self, asked: bytes, answer: bytes) -> bytes | None:
        """Nothing, the first time that the word is in it."""
        if self._armed and self._word in asked:
            self._armed = False
            self.dropped += 1
            return None
        return answer
