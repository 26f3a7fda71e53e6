"""A TCP proxy that swallows the reply of one command: done, but nobody hears of it."""

import contextlib
import socket
import threading


class DroppingProxy:
    """
    Forward to a server on this host; drop the reply of the first command that holds a word.

    The command is forwarded and its reply awaited; then both connections are closed.
    Everything else passes, on any number of connections.
    """

    def __init__(self, port: int, word: bytes = b"EVALSHA") -> None:
        self._target = ("127.0.0.1", port)
        self._word = word
        self._armed = True
        self.dropped = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept nobody any more; open connections end with their clients."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        # Redis answers in turn, so asking and answering in turn is enough of a proxy.
        with near, socket.create_connection(self._target) as far, contextlib.suppress(OSError):
            while asked := near.recv(65536):
                far.sendall(asked)
                answer = far.recv(65536)
                if self._armed and self._word in asked:
                    self._armed = False
                    self.dropped += 1
                    return
                near.sendall(answer)
