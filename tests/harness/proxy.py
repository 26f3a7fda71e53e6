"""A TCP proxy that can be cut, or made to hang, between a worker and its servers."""

import contextlib
import socket
import threading


class Proxy:
    """
    Forward bytes from a port of our own to a server's, until told otherwise.

    `cut` closes every connection and refuses new ones, `hang` keeps them open and
    forwards nothing, `heal` ends either.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._closed = False
        self._guard = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True, name="proxy").start()

    def cut(self) -> int:
        """Drop all connections and refuse new ones; returns how many were open."""
        self._refusing = True
        return self._drop() // 2

    def blink(self) -> int:
        """Drop all connections and accept new ones at once; returns how many were open."""
        return self._drop() // 2

    def hang(self) -> None:
        """Keep connections open, and new ones too, but let nothing through."""
        self._flowing.clear()

    def heal(self) -> None:
        """Be a good proxy again."""
        self._refusing = False
        self._flowing.set()

    def close(self) -> None:
        """End for good, with all connections."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._drop()
        self._flowing.set()

    def _drop(self) -> int:
        with self._guard:
            doomed, self._sockets = self._sockets, set()
        for each in doomed:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        return len(doomed)

    def _accept(self) -> None:
        while not self._closed:
            with contextlib.suppress(OSError):
                near, _ = self._listener.accept()
                if self._refusing:
                    near.close()
                    continue
                self._connect(near)

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._target, timeout=5)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        with self._guard:
            self._sockets |= {near, far}
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        with self._guard:
            ours = {source, sink} & self._sockets
            self._sockets -= ours
        for each in ours:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
