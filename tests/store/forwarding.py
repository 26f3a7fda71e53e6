"""A TCP proxy whose subclasses meddle with what a server answers."""

import contextlib
import socket
import threading


class ForwardingProxy:
    """
    Forward to a server on this host, each answer as `answer` leaves it.

    Redis answers in turn, so asking and answering in turn is enough of a proxy, on
    any number of connections.

    Args:
        port: The server's.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def answer(self, asked: bytes, answer: bytes) -> bytes | None:
        """What to pass on; None closes both connections instead."""
        raise NotImplementedError

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
        with near, socket.create_connection(self._target) as far, contextlib.suppress(OSError):
            while asked := near.recv(65536):
                far.sendall(asked)
                answer = self.answer(asked, far.recv(65536))
                if answer is None:
                    return
                near.sendall(answer)
