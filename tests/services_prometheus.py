"""Prometheus for tests: the installed programs, and a server with a configuration that the test gives."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services_database import missing
from tests.waiting import wait_until_it_answers

_PATIENCE_S = 60.0


class PrivatePrometheus:
    """A Prometheus server of one test: its own configuration, files and port."""

    def __init__(self, program: Path, configuration: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._output = configuration.with_name("prometheus.log")
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={configuration}",
                    f"--storage.tsdb.path={configuration.with_name('data')}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=configuration.parent,
            )

    def wait_ready(self) -> None:
        """Wait until it answers questions."""
        wait_until_it_answers(
            f"{self.url}/-/ready",
            self._process,
            lambda: self._output.read_text(errors="replace")[-3000:],
            patience_s=_PATIENCE_S,
            look_every_s=0.1,
        )

    def remove(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        missing(f"This test needs {name} (Debian: prometheus; the service itself need not run).")
    return Path(found)


@pytest.fixture(scope="session")
def promtool() -> Path:
    """The program that checks configurations and rules."""
    return _program("promtool")


@pytest.fixture
def start_prometheus() -> Iterator[Callable[[Path, int], PrivatePrometheus]]:
    """Starts a server with a configuration, which stands in a folder of the test's own, at a port."""
    program = _program("prometheus")
    started: list[PrivatePrometheus] = []

    def start(configuration: Path, port: int) -> PrivatePrometheus:
        started.append(PrivatePrometheus(program, configuration, port))
        started[-1].wait_ready()
        return started[-1]

    yield start
    for each in started:
        each.remove()
