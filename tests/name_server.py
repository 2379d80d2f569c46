"""A name server on the loopback, for tests: a name has the addresses that the test gives it at that moment."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_A, _IN = 1, 1


class NameServer:
    """Answers questions for addresses (A) from `names`; what is not there does not exist."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self.names = names
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it answers, `HOST:PORT`."""
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def close(self) -> None:
        """End it."""
        self._ending.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                question, client = self._socket.recvfrom(4096)
            except TimeoutError:
                continue
            self._socket.sendto(self._answer(question), client)

    def _answer(self, question: bytes) -> bytes:
        (number,) = struct.unpack("!H", question[:2])
        labels, place = [], 12
        while length := question[place]:
            labels.append(question[place + 1 : place + 1 + length].decode())
            place += 1 + length
        (kind,) = struct.unpack("!H", question[place + 1 : place + 3])
        addresses = self.names.get(".".join(labels).lower())
        found = addresses if addresses is not None and kind == _A else []
        status = 0x8180 if addresses is not None else 0x8183
        head = struct.pack("!HHHHHH", number, status, 1, len(found), 0, 0)
        # A long life, as Docker's names have it: whoever asks has to know better.
        records = b"".join(
            struct.pack("!HHHIH", 0xC00C, _A, _IN, 600, 4) + socket.inet_aton(address) for address in found
        )
        return head + question[12 : place + 5] + records


@contextmanager
def naming(names: dict[str, list[str]]) -> Iterator[NameServer]:
    """A server that knows these names, inside."""
    server = NameServer(dict(names))
    try:
        yield server
    finally:
        server.close()
