"""Ports for servers that a test starts."""

import itertools
import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress

#: None of those that the system picks itself (port 0): it may give one to somebody's connection before the server has
#: begun to listen.
_PORTS = range(10_000, 20_000)


def free_port() -> int:
    """A TCP port of the loopback that nobody has."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many ports that nobody has, each another one."""
    ports: list[int] = []
    while len(ports) < count:
        port = next(_next_ports)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
    return ports


def _own_ports() -> Iterator[int]:
    """The ports of this process of pytest-xdist, one after the other, for ever.

    A port is free until its server listens, some seconds after it was given out. With ports at random, another test
    would get the same one in that time now and then, and its server would answer.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = _PORTS[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    start = random.randrange(len(own))
    return itertools.cycle([*own[start:], *own[:start]])


_next_ports = _own_ports()
