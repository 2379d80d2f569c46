"""One HTTP service as a real process, on a port of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx

from tests.fork_server import Forked, ForkServer

_START_S = 60.0
_STOP_S = 30.0


class ServiceProcess:
    """`foretell serve NAME`, listening where the system found a free port."""

    #: What starts `foretell serve` of a service in a small part of the time; benchmarks start all as users do.
    fork_servers: ClassVar[Mapping[str, ForkServer]] = {}

    def __init__(self, process: subprocess.Popen[bytes] | Forked, log: Path) -> None:
        self.process = process
        self._log = log
        self.port = 0

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def lines(self, message: str = "") -> list[dict[str, Any]]:
        """What it logged so far; with `message` only those lines."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if not message or line["message"] == message]

    def raw_lines(self) -> list[str]:
        """Every line that it wrote, as it stands there."""
        return self._log.read_text().splitlines()

    def wait_until_ready(self) -> None:
        """Return when `/health/ready` says so. Raises `RuntimeError` with the log otherwise."""
        end = time.monotonic() + _START_S
        while time.monotonic() < end and self.process.poll() is None:
            listening = self.lines("service_listening")
            if listening:
                self.port = listening[0]["port"]
                try:
                    if httpx.get(f"{self.url}/health/ready", verify=False).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
            time.sleep(0.05)
        raise RuntimeError(f"the service is not ready; its log:\n{self._log.read_text()}")

    def stop(self) -> int:
        """End it as a supervisor does, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_STOP_S)


@contextmanager
def running_service(name: str, folder: Path, **environment: str) -> Iterator[ServiceProcess]:
    """A service that is ready; `folder` takes its log, `environment` its settings (`FORETELL_...`)."""
    log = folder / f"{name}.log"
    ours = {key: value for key, value in os.environ.items() if not key.startswith("FORETELL_")}
    wanted = ours | {"FORETELL_PORT": "0", "FORETELL_DATA_DIR": str(folder / "data")} | environment
    process = _start(name, wanted, log)
    service = ServiceProcess(process, log)
    try:
        service.wait_until_ready()
        yield service
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _start(name: str, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes] | Forked:
    with log.open("wb") as output:
        if name in ServiceProcess.fork_servers:
            server = ServiceProcess.fork_servers[name]
            return server.start(environment=environment, output=log, folder=Path.cwd(), command=("serve", name))
        command = [sys.executable, "-m", "foretell.cli", "serve", name]
        return subprocess.Popen(command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT)
