"""Network namespaces of a test's own, and what happens to the packets between them.

In the middle is a hub, where servers run; each leg is a namespace that has nothing but a link to the hub. The machine's
own network is neither used nor changed, and everything is gone with `remove`. Needs root.
"""

import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from tests.services_database import missing

#: Packets that are lost: on their way to the server, on their way back, or on both.
Direction = Literal["to", "from", "both"]

#: Addresses only inside the namespaces: servers listen at the hub's, which every leg reaches.
HUB_ADDRESS = "10.213.0.1"
_CLONE_NEWNET = 0x40000000
_PRESENT_NAMESPACE = "/proc/thread-self/ns/net"
#: As /proc/net/tcp writes it.
_ESTABLISHED = "01"


@dataclass(frozen=True)
class Leg:
    """A namespace with a link to the hub, as seen from there."""

    namespace: str
    interface: str
    address: str

    @property
    def file(self) -> str:
        """What a process that is to run there enters."""
        return f"/run/netns/{self.namespace}"


class Network:
    """A hub and its legs."""

    def __init__(self) -> None:
        if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("iptables") is None:
            missing("This test makes network namespaces: it needs root, and iproute2 and iptables (Debian's packages).")
        self.hub = f"foretell-{secrets.token_hex(4)}"
        self.legs: dict[str, Leg] = {}
        self._outside = os.open(_PRESENT_NAMESPACE, os.O_RDONLY)
        made = _run("ip", "netns", "add", self.hub, check=False)
        if made.returncode != 0:
            os.close(self._outside)
            missing(f"This test makes network namespaces, and this machine lets nobody do that: {made.stderr.strip()}")
        try:
            _run("ip", "-n", self.hub, "link", "set", "lo", "up")
            _run("ip", "-n", self.hub, "address", "add", f"{HUB_ADDRESS}/32", "dev", "lo")
            self._require_loss()
        except BaseException:
            self.remove()
            raise

    def _require_loss(self) -> None:
        """Make sure that this kernel can lose packets at random."""
        tried = self._filter(self.hub, *_rule(0.5, "--dport", 1, []), check=False)
        if tried.returncode != 0:
            missing(f"This test loses packets with iptables' statistic match, and can't: {tried.stderr.strip()}")
        self.heal()

    def add_leg(self, name: str) -> Leg:
        """A new namespace, tied to the hub."""
        number = len(self.legs) + 1
        leg = Leg(f"{self.hub}-{name}", f"leg{number}", f"10.213.{number}.2")
        _run("ip", "netns", "add", leg.namespace)
        self.legs[name] = leg
        link = ["type", "veth", "peer", "name", "hub", "netns", leg.namespace]
        _run("ip", "-n", self.hub, "link", "add", leg.interface, *link)
        _run("ip", "-n", self.hub, "address", "add", f"10.213.{number}.1/24", "dev", leg.interface)
        _run("ip", "-n", self.hub, "link", "set", leg.interface, "up")
        _run("ip", "-n", leg.namespace, "link", "set", "lo", "up")
        _run("ip", "-n", leg.namespace, "address", "add", f"{leg.address}/24", "dev", "hub")
        _run("ip", "-n", leg.namespace, "link", "set", "hub", "up")
        _run("ip", "-n", leg.namespace, "route", "add", "default", "via", f"10.213.{number}.1")
        return leg

    def lose(self, name: str, port: int, direction: Direction = "both", *, share: float = 1.0) -> None:
        """Lose packets between a leg and the server at `port` of the hub: this share of them, until `heal`.

        They are lost where they arrive, so that the sender learns nothing.
        """
        leg = self.legs[name]
        if direction in ("to", "both"):
            self._filter(self.hub, *_rule(share, "--dport", port, ["--in-interface", leg.interface]))
        if direction in ("from", "both"):
            self._filter(leg.namespace, *_rule(share, "--sport", port, []))

    def heal(self) -> None:
        """Lose nothing any more."""
        for namespace in [self.hub, *(leg.namespace for leg in self.legs.values())]:
            self._filter(namespace, "--flush", "INPUT")

    def abandoned(self, port: int) -> set[tuple[str, int]]:
        """Connections that the server at `port` of the hub keeps and no process of a leg knows any more: their ends."""
        kept = {theirs for ours, theirs in _connections(self.hub) if ours == (HUB_ADDRESS, port)}
        known = {ours for leg in self.legs.values() for ours, theirs in _connections(leg.namespace)}
        legs = {leg.address for leg in self.legs.values()}
        return {end for end in kept - known if end[0] in legs}

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Inside the block, this thread, and the threads and processes that it starts, are in the hub."""
        with open(f"/run/netns/{self.hub}") as hub, _moved_to(hub.fileno()):
            yield

    @contextmanager
    def left(self) -> Iterator[None]:
        """Inside the block, in one of `entered`, this thread is where the machine's other processes are."""
        with _moved_to(self._outside):
            yield

    def remove(self) -> None:
        """Delete every namespace; what runs in them must have ended."""
        for namespace in [*(leg.namespace for leg in self.legs.values()), self.hub]:
            _run("ip", "netns", "delete", namespace)
        os.close(self._outside)

    def _filter(self, namespace: str, *rule: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return _run("ip", "netns", "exec", namespace, "iptables", "--wait", *rule, check=check)


def _rule(share: float, which_port: str, port: int, link: list[str]) -> list[str]:
    chance = ["--match", "statistic", "--mode", "random", "--probability", f"{share:g}"] if share < 1 else []
    return ["--append", "INPUT", *link, "--protocol", "tcp", which_port, str(port), *chance, "--jump", "DROP"]


def _connections(namespace: str) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """The TCP connections that are open in a namespace, each as its own end and the other."""
    table = _run("ip", "netns", "exec", namespace, "cat", "/proc/net/tcp").stdout.splitlines()[1:]
    rows = [line.split()[1:4] for line in table]
    return [(_end(ours), _end(theirs)) for ours, theirs, state in rows if state == _ESTABLISHED]


def _end(written: str) -> tuple[str, int]:
    address, port = written.split(":")
    return socket.inet_ntoa(int(address, 16).to_bytes(4, sys.byteorder)), int(port, 16)


@contextmanager
def _moved_to(namespace: int) -> Iterator[None]:
    # `os.setns` came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    with open(_PRESENT_NAMESPACE) as before:
        if libc.setns(namespace, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            libc.setns(before.fileno(), _CLONE_NEWNET)


def _run(*command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, check=check, capture_output=True, text=True)
