"""Databases for tests: every test gets one of its own and leaves nothing behind.

`database` is a migrated `Database`, on PostgreSQL and on SQLite in turn; `private_postgresql` is a whole server that
a test may stop and kill.
"""

import asyncio
import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import asyncpg
import psutil
import pytest

from foretell.domain.migrations.run import migrate
from foretell.kit.database import Database
from tests.asides import run_aside
from tests.ports import free_port
from tests.postgresql_databases import DatabasePool, new_postgresql, postgresql_template

_USUAL_URL = "postgresql://postgres@127.0.0.1:5432/postgres"
_PATIENCE_S = 60.0
#: Settings of the server that many tests share.
_OF_MANY_TESTS = {
    # A test that wants statistics makes them; others' come at any time, and then a database is not as it was.
    "autovacuum": "off",
    # Nobody needs its log: as little is written as can be, to few files, which are not filled with zeros first.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "64MB",
    "wal_init_zero": "off",
}


class PrivatePostgresql:
    """A PostgreSQL server of one test: its own files, its own port on the loopback, started and ended at will."""

    def __init__(
        self,
        programs: Path,
        *,
        address: str = "127.0.0.1",
        standby_of: "PrivatePostgresql | None" = None,
        parent: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`address`: another than the loopback's only where nobody else gets to, since no password is asked for.

        `standby_of` is a running server that this one follows. `parent` is where its folder is made. `settings` are
        more of the server's than what suits every test.
        """
        self._programs = programs
        # Not below pytest's folder, which is closed to the user that the server must run as.
        self._folder = Path(tempfile.mkdtemp(prefix="foretell-postgresql-", dir=parent))
        self._data = self._folder / "data"
        self._account = unprivileged_account()
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = dict(settings or {})
        self._address = address
        self.port = free_port()
        self.socket_folder = str(self._folder)
        self.url = f"postgresql://postgres@{address}:{self.port}/postgres"
        self.give(self._folder)
        made: list[Any]
        if standby_of is None:
            made = ["cp", "-R", _new_server(programs), self._data]
        else:
            made = [programs / "pg_basebackup", "-D", self._data, "-R", "-c", "fast", "-d", standby_of.url]
        with self._log() as log:
            subprocess.run(made, check=True, stdout=log, stderr=log, cwd=self._folder, **self._account)
        if address != "127.0.0.1":
            with (self._data / "pg_hba.conf").open("a") as access:
                access.write("host all all all trust\n")

    def give(self, folder: Path) -> None:
        """Let the server write in this folder."""
        if self._account:
            shutil.chown(folder, self._account["user"], self._account["group"])

    def start(self) -> None:
        """Start, and wait until it answers. One that has ended by itself is started again."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while True:
            if self._process is None or self._process.poll() is not None:
                # A server that was killed leaves children behind for a moment, which keep the next one out.
                self._process = self._spawn()
            if _answers(self.url):
                return
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"PostgreSQL did not start: {self.log_tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in order; clients are disconnected."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a power cut would, every process of it."""
        children = [] if self._process is None else _children(self._process)
        self._end(signal.SIGKILL)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def pause(self) -> None:
        """Stop every process of it where it stands: connections stay open and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._signal_all(signal.SIGCONT)

    def remove(self) -> None:
        """End it and remove its files."""
        if self._process is not None:
            self.resume()
        self.kill()
        shutil.rmtree(self._folder)

    def new_standby(self) -> "PrivatePostgresql":
        """A running server that follows this one, whose commits wait for it from now on. To be removed."""
        standby = PrivatePostgresql(self._programs, standby_of=self)
        standby.start()
        run_aside(_execute(self.url, "ALTER SYSTEM SET synchronous_standby_names = '*'"))
        run_aside(_execute(self.url, "SELECT pg_reload_conf()"))
        return standby

    def promote(self) -> None:
        """Let this standby be the primary, and wait until it is."""
        run_aside(_execute(self.url, "SELECT pg_promote()"))

    def ask_for_password(self, user: str) -> None:
        """Let this user in with the password alone; all others need none."""
        file = self._data / "pg_hba.conf"
        file.write_text(f'host all "{user}" all scram-sha-256\n{file.read_text()}')
        run_aside(_execute(self.url, "SELECT pg_reload_conf()"))

    def use_tls(self) -> Path:
        """Offer TLS from now on, as `localhost`; returns the file of its certificate, which signs itself."""
        certificate = self.make_certificate(self._folder)
        run_aside(_execute(self.url, f"ALTER SYSTEM SET ssl_cert_file = '{certificate}'"))
        run_aside(_execute(self.url, f"ALTER SYSTEM SET ssl_key_file = '{certificate.with_name('key.pem')}'"))
        run_aside(_execute(self.url, "ALTER SYSTEM SET ssl = on"))
        run_aside(_execute(self.url, "SELECT pg_reload_conf()"))
        return certificate

    def make_certificate(self, folder: Path) -> Path:
        """A new certificate for `localhost` in `folder`, and its key `key.pem` beside it."""
        openssl = shutil.which("openssl") or missing("This test needs openssl on the PATH.")
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        new = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        more = ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
        subprocess.run([*new, *more], check=True, capture_output=True)
        if self._account:
            shutil.chown(key, self._account["user"], self._account["group"])
        return certificate

    def log_tail(self) -> str:
        """The end of what it wrote."""
        return (self._folder / "log").read_text(errors="replace")[-2000:]

    def _log(self) -> Any:
        return (self._folder / "log").open("ab")

    def _spawn(self) -> subprocess.Popen[bytes]:
        options = {
            "listen_addresses": self._address,
            "unix_socket_directories": self.socket_folder,
            "port": self.port,
            # Processes are killed here, machines are not: what was written is there even if it was not flushed.
            "fsync": "off",
            # A client that is held up before it has said who it is holds up the server's end for so long (60 s).
            "authentication_timeout": "15s",
            "max_connections": 100,
            "shared_buffers": "32MB",
            # In its folder: what a killed server leaves in /dev/shm stays there.
            "dynamic_shared_memory_type": "mmap",
            **self._settings,
        }
        command = [self._programs / "postgres", "-D", self._data]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with self._log() as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, **self._account)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_PATIENCE_S)
            self._process = None

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server is not running"
        for process in [psutil.Process(self._process.pid), *_children(self._process)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@functools.cache
def _new_server(programs: Path) -> Path:
    """The files of a server as it is when it is new, made once a process: that takes 0.8 s of processor time."""
    folder = Path(tempfile.mkdtemp(prefix="foretell-postgresql-"))
    # Who had temporary files in memory has removed it with them by then.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    account = unprivileged_account()
    if account:
        shutil.chown(folder, account["user"], account["group"])
    data = folder / "data"
    command = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, **account)
    assert made.returncode == 0, made.stdout + made.stderr
    return data


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL server on which databases may be created: the one that is given, else one of our own.

    One of our own need not flush to disk, so a database comes and goes in a small part of the time that it takes on a
    server that somebody uses. That one is for machines where no server is installed (but perhaps a container runs).
    """
    given = os.environ.get("FORETELL_TEST_DATABASE_URL")
    if given or (_installed_programs() is None and _answers(_USUAL_URL)):
        yield given or _USUAL_URL
        return
    server = PrivatePostgresql(postgresql_programs(), settings=_OF_MANY_TESTS)
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


@pytest.fixture
def fresh_postgresql(postgresql_url: str) -> Iterator[str]:
    """The URL of an empty database that is the test's own."""
    with new_postgresql(postgresql_url) as url:
        yield url


@pytest.fixture(scope="session")
def _migrated_postgresql(postgresql_url: str) -> Iterator[str]:
    with postgresql_template(postgresql_url, _migrate) as name:
        yield name


@pytest.fixture(scope="session")
def _postgresql_pool(postgresql_url: str, _migrated_postgresql: str) -> Iterator[DatabasePool]:
    pool = DatabasePool(postgresql_url, _migrated_postgresql)
    yield pool
    pool.close()


@pytest.fixture
def postgresql_with_tables(postgresql_url: str, _migrated_postgresql: str) -> Iterator[str]:
    """The URL of a migrated database without rows that is the test's own, and was nobody's before."""
    with new_postgresql(postgresql_url, _migrated_postgresql) as url:
        yield url


@pytest.fixture(scope="session")
def _migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file that others are copied from."""
    file = tmp_path_factory.mktemp("migrated") / "foretell.db"
    run_aside(_migrate(f"sqlite:///{file}"))
    return file


@pytest.fixture(params=["postgresql", "sqlite"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of the test's own, on PostgreSQL and on SQLite in turn.

    For tests that ask for `database`, too, it is that one, with the tables in it.
    """
    migrated = "database" in request.fixturenames
    if request.param == "sqlite":
        file = tmp_path / "foretell.db"
        if migrated:
            shutil.copy(request.getfixturevalue("_migrated_sqlite"), file)
        yield f"sqlite:///{file}"
        return
    if migrated:
        with request.getfixturevalue("_postgresql_pool").database() as url:
            yield url
        return
    with new_postgresql(request.getfixturevalue("postgresql_url")) as url:
        yield url


@pytest.fixture
async def database(empty_database_url: str) -> AsyncIterator[Database]:
    """A migrated database of the test's own, on PostgreSQL and on SQLite in turn."""
    database = Database(empty_database_url, application="test")
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
def private_postgresql() -> Iterator[PrivatePostgresql]:
    """A running server of the test's own."""
    server = PrivatePostgresql(postgresql_programs())
    try:
        server.start()
        yield server
    finally:
        server.remove()


@contextlib.asynccontextmanager
async def without_standby(url: str) -> AsyncIterator[None]:
    """Inside, commits on this private server wait for a synchronous standby that is not there."""
    operator = await asyncpg.connect(url)
    try:
        await operator.execute("CREATE TABLE IF NOT EXISTS committed (at timestamptz)")
        await operator.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        await operator.execute("SELECT pg_reload_conf()")
        with contextlib.suppress(TimeoutError):
            while True:
                await operator.execute("INSERT INTO committed VALUES (now())", timeout=1)
        yield
    finally:
        await operator.execute("SET synchronous_commit = local")
        await operator.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await operator.execute("SELECT pg_reload_conf()")
        await operator.close()


def missing(what: str) -> NoReturn:
    """Skip the test for want of `what`; on the build server, where nothing may be missing, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


async def _migrate(url: str) -> None:
    database = Database(url, application="test")
    try:
        await migrate(database)
    finally:
        await database.close()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _answers(url: str) -> bool:
    try:
        run_aside(asyncio.wait_for(_execute(url, "SELECT 1"), 5))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


def _installed_programs() -> Path | None:
    """The folder of the newest PostgreSQL server that is installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if installed:
        return installed[-1].parent
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found else None


def postgresql_programs() -> Path:
    """The folder of the newest PostgreSQL server that is installed; without one, the test is skipped."""
    return _installed_programs() or missing(
        "This test needs PostgreSQL: set FORETELL_TEST_DATABASE_URL, or install a server (Debian: postgresql)."
    )


def unprivileged_account() -> dict[str, Any]:
    """As whom to run the server, for `subprocess`: it refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    import pwd

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam(name)
            return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    missing("This test starts PostgreSQL, which refuses to run as root, and there is no user postgres or nobody.")


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def answers_tcp(port: int) -> bool:
    """Whether somebody listens on this port of the loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False
