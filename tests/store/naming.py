"""A sentinel that says what it is told to: one that has not heard of a failover, or hangs."""

import contextlib
import socket
import threading

from tests.harness.redis_server import RedisServer


class NamingSentinel:
    """
    Name a server as the master, to whoever asks anything.

    Real sentinels agree within a fraction of a second; the moments before that are what
    this one is for.
    """

    def __init__(self, names: RedisServer | None = None) -> None:
        self.names = names
        self.asked = 0
        self.hangs = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """As Celery's users write it."""
        return f"sentinel://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Answer nobody any more."""
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._open.append(near)
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while asked := near.recv(65536):
                if not self.hangs.is_set():
                    for word in asked.split(b"*")[1:]:
                        near.sendall(self._answer(word))

    def _answer(self, word: bytes) -> bytes:
        if b"HELLO" in word:
            return b"%1\r\n+proto\r\n:3\r\n"
        if b"GET-MASTER" not in word:
            return b"-ERR not me\r\n"
        self.asked += 1
        if self.names is None:
            return b"*-1\r\n"
        port = str(self.names.port).encode()
        return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%b\r\n" % (len(port), port)
