"""Starts a service by forking a process that has imported it, since importing is most of what a start costs.

A service that is started so is a process like any other: its environment, folder, output, session and signals are its
own. `tests/e2e/test_local_engine.py` starts services as users do.

Run as a program, this is the process that forks. Over a socket it takes what to start, a JSON object a line, and says
which process that is and, later, how each one ended. Each service has one of its own: a process also shows the
metrics of whatever was imported in it.
"""

import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

#: What is imported only once a service runs. Not onnxruntime: it starts a thread, which a fork would miss at its end.
_MORE = ("uvloop", "foretell.cli.main", "foretell.cli.serving")
_MORE_OF = {
    "app": ("aiormq",),
    "dispatcher": ("aiormq", "alembic.command", "foretell.domain.migrations.schema"),
    "worker": ("aiormq", "numpy"),
    "model": ("numpy",),
}
_CLONE_NEWNET = 0x40000000


class ForkServer:
    """The tests' end: starts a service, and knows how it ended. Its process is there from the first start on."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._statuses: dict[int, int] = {}

    def start(
        self,
        *,
        environment: Mapping[str, str],
        output: Path,
        folder: Path,
        command: tuple[str, ...] = (),
        network: str | None = None,
    ) -> "Forked":
        """Start one more, in `folder`; it writes to the end of `output`.

        `command`, if there is one, are arguments of `foretell`, which then starts the service. `network` is the file of
        its network namespace; without it, that is the one of this thread.
        """
        order = {
            "environment": dict(environment),
            "output": str(output),
            "folder": str(folder),
            "command": command,
            "network": network or _present_network(),
        }
        with self._lock:
            if self._process is None:
                self._open()
            self._lines.write(json.dumps(order) + "\n")
            self._lines.flush()
            while (pid := self._read().get("started")) is None:
                pass
            # An identifier may come again.
            self._statuses.pop(pid, None)
        return Forked(self, pid)

    def status_of(self, pid: int) -> int | None:
        """How a process ended, as `subprocess` has it; None while it runs."""
        with self._lock:
            while pid not in self._statuses and select.select([self._socket], [], [], 0)[0]:
                self._read()
            return self._statuses.get(pid)

    def close(self) -> None:
        """End the process that forks, and with it whatever it started and still runs."""
        if self._process is not None:
            self._lines.close()
            self._socket.close()
            self._process.wait()

    def _open(self) -> None:
        self._socket, theirs = socket.socketpair()
        # Unbuffered in what is read, so that what can be read is seen on the socket.
        self._lines = self._socket.makefile("w", encoding="utf-8")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, self._service, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def _read(self) -> dict[str, int]:
        line = b""
        while not line.endswith(b"\n"):
            byte = self._socket.recv(1)
            if not byte:
                raise RuntimeError("the process that starts services has ended")
            line += byte
        message: dict[str, int] = json.loads(line)
        if "ended" in message:
            self._statuses[message["ended"]] = message["status"]
        return message


class Forked:
    """A process that was started so, with what tests need of `subprocess.Popen`."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server = server
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status, or the number of the signal that ended it below zero; None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.status_of(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended. Raises `subprocess.TimeoutExpired`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(0.005)
        return status

    def send_signal(self, number: int) -> None:
        """Nothing happens when it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _serve(control: socket.socket) -> list[str] | None:
    """Fork whenever asked to, until nobody asks any more; a child returns its command."""
    waking, waker = os.pipe()
    for end in (waking, waker):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: set[int] = set()
    orders = control.makefile("r", encoding="utf-8")
    while True:
        readable, _, _ = select.select([control, waking], [], [])
        if waking in readable:
            os.read(waking, 4096)
            for pid, status in _ended(children):
                control.sendall(json.dumps({"ended": pid, "status": status}).encode() + b"\n")
        if control in readable:
            line = orders.readline()
            if not line:
                for pid in children:
                    os.kill(pid, signal.SIGKILL)
                return None
            order = json.loads(line)
            # Before anybody is told of the process: it may be the network of a thread that then ends.
            network = None if order["network"] is None else os.open(order["network"], os.O_RDONLY)
            pid = os.fork()
            if pid == 0:
                if network is not None:
                    _move_to(network)
                _become(order)
                command: list[str] = order["command"]
                return command
            if network is not None:
                os.close(network)
            children.add(pid)
            control.sendall(json.dumps({"started": pid}).encode() + b"\n")


def _ended(children: set[int]) -> list[tuple[int, int]]:
    ended = []
    for pid in sorted(children):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            children.remove(pid)
            ended.append((pid, os.waitstatus_to_exitcode(status)))
    return ended


def _become(order: dict[str, Any]) -> None:
    """Be a process of its own."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.closerange(3, 1024)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])


def _present_network() -> str | None:
    """The file of this thread's network namespace; None where there is no such thing."""
    file = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
    return file if os.path.exists(file) else None


def _move_to(network: int) -> None:
    """Be in this network namespace, an open file. Only root can leave the one that this process is in."""
    if os.path.samestat(os.fstat(network), os.stat("/proc/self/ns/net")):
        return
    # `os.setns` came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(network, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


if __name__ == "__main__":
    # That forking and threads do not go together is meant for threads of Python; numpy's look after themselves.
    warnings.simplefilter("ignore", DeprecationWarning)
    service = import_module(f"foretell.services.{sys.argv[1]}.app")
    for name in (*_MORE, *_MORE_OF.get(sys.argv[1], ())):
        import_module(name)
    gc.collect()
    gc.freeze()
    arguments = _serve(socket.socket(fileno=int(sys.argv[2])))
    if arguments:
        sys.argv = ["foretell", *arguments]
        import_module("foretell.cli.main").run()
    elif arguments is not None:
        service.main()
