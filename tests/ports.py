"""Ports for servers that a test starts."""

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """A TCP port of the loopback that nobody has."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many ports that nobody has, each another one.

    None of those that the system picks itself (port 0): it may give one to somebody's connection before the server has
    begun to listen.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(10_000, 20_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in ports:
                ports.append(port)
    return ports
