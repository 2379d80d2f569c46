"""PgBouncer for tests: one in transaction mode in front of a private PostgreSQL."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.services_database import PrivatePostgresql, answers_tcp, missing, unprivileged_account

_PATIENCE_S = 60.0


class PrivatePgbouncer:
    """A PgBouncer of one test, with few connections to the server, so that transactions change them all the time."""

    def __init__(self, program: str, server: PrivatePostgresql, more: str) -> None:
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._program = program
        self._account = unprivileged_account()
        self._folder = Path(tempfile.mkdtemp(prefix="foretell-pgbouncer-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._configuration = self._folder / "pgbouncer.ini"
        self._configuration.write_text(
            "[databases]\n"
            f"postgres = host=127.0.0.1 port={server.port} user=postgres\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 200\n{more}\n"
        )
        if self._account:
            shutil.chown(self._folder, self._account["user"], self._account["group"])

    def start(self) -> None:
        """Start, and wait until it listens."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(self._configuration)], stdout=log, stderr=log, cwd=self._folder, **self._account
            )
        deadline_s = time.monotonic() + _PATIENCE_S
        while not answers_tcp(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise TimeoutError((self._folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """End it; clients are disconnected."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE_S)
            self._process = None

    def remove(self) -> None:
        """End it and remove its files."""
        self.kill()
        shutil.rmtree(self._folder)


@pytest.fixture
def new_pgbouncer(private_postgresql: PrivatePostgresql) -> Iterator[Callable[..., PrivatePgbouncer]]:
    """Makes running PgBouncers in front of the private server; takes further lines of their configuration."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin") or shutil.which("pgbouncer")
    if program is None:
        missing("This test needs pgbouncer on the PATH (Debian: pgbouncer).")
    made: list[PrivatePgbouncer] = []

    def make(more: str = "") -> PrivatePgbouncer:
        made.append(PrivatePgbouncer(program, private_postgresql, more))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.remove()
