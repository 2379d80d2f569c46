"""RabbitMQ for tests: a prefix of its own for every test on one server, or a whole server that a test may kill.

`rabbitmq_url` is the server that is there (`FORETELL_TEST_BROKER_URL`, else the usual one on this machine), or one that
is started for the session. `broker_prefix` is for queue names on it; `private_rabbitmq` is a server of which one test
at a time has the sole use.
"""

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import aiormq
import psutil
import pytest
from yarl import URL

from foretell.contracts import queues
from tests.ports import free_ports

_USUAL_URL = "amqp://guest:guest@127.0.0.1:5672/"
_PATIENCE_S = 180.0
#: What `strict_rabbitmq` takes at most.
STRICT_BYTES = 64 * 1024


class PrivateRabbitMQ:
    """A RabbitMQ server of our own, with its own files, ports and node name, started and ended at will."""

    def __init__(
        self,
        programs: Path,
        *settings: str,
        address: str = "127.0.0.1",
        beside: "PrivateRabbitMQ | None" = None,
    ) -> None:
        """`settings` are more lines of rabbitmq.conf. `beside` is a running node, with which this one makes a cluster.

        `address`: another than the loopback's only where nobody else gets to, since everybody may come in.
        """
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="foretell-rabbitmq-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port, distribution_port, epmd_port = free_ports(3)
        self.node = f"foretell-{secrets.token_hex(4)}@localhost"
        if beside is not None:
            epmd_port = int(beside._environment["ERL_EPMD_PORT"])
            shutil.copy(beside._folder / ".erlang.cookie", self._folder)
            settings = (
                *settings,
                "cluster_formation.peer_discovery_backend = classic_config",
                "cluster_formation.randomized_startup_delay_range.min = 0",
                "cluster_formation.randomized_startup_delay_range.max = 1",
                f"cluster_formation.classic_config.nodes.1 = {beside.node}",
            )
        self.url = f"amqp://guest:guest@{address}:{self.port}/"
        self._data = self._folder / "data"
        first = [f"listeners.tcp.1 = {address}:{self.port}", "disk_free_limit.absolute = 1MB", "loopback_users = none"]
        (self._folder / "rabbitmq.conf").write_text("\n".join([*first, *settings, ""]))
        (self._folder / "enabled_plugins").write_text("[].\n")
        (self._folder / "rabbitmq-env.conf").write_text("")
        self._environment = {
            "PATH": os.environ["PATH"],
            # The home is where Erlang keeps its cookie.
            "HOME": str(self._folder),
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self._data),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }
        # Erlang's name server; without one of our own the node would leave a daemon behind.
        self._epmd = None if beside is not None else _name_server(_epmd(programs), epmd_port)

    def start(self) -> None:
        """Start, and wait until it answers."""
        if self._process is None:
            with (self._folder / "output").open("ab") as output:
                self._process = subprocess.Popen(
                    [self._programs / "rabbitmq-server"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self._folder,
                    env=self._environment,
                    start_new_session=True,
                )
        deadline_s = time.monotonic() + _PATIENCE_S
        while not answers(self.url):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise TimeoutError(f"RabbitMQ did not start: {self.log_tail()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it in order; clients are told."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would, every process of it."""
        self._end(signal.SIGKILL)

    def wipe(self) -> None:
        """Delete its data. Only while it is down."""
        assert self._process is None, "RabbitMQ is running"
        shutil.rmtree(self._data, ignore_errors=True)

    def pause(self) -> None:
        """Stop every process of it where it stands: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._signal(signal.SIGCONT)

    def remembers(self, queue: str) -> bool:
        """Whether it would find this quorum queue's leader again after a kill.

        RabbitMQ 3.10 writes the names of such queues down up to a second after their declaration, or under load later.
        """
        # Queues of other tests lie there too, whose names may end or begin as this one.
        name = re.compile(rb"%2F_" + re.escape(queue.encode()) + rb"(?!\.)")
        return any(name.search(file.read_bytes()) for file in self._data.glob("*/quorum/*/names.dets"))

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl ARGUMENTS` prints."""
        command = [self._programs / "rabbitmqctl", "--quiet", *arguments]
        done = subprocess.run(
            command, env=self._environment, cwd=self._folder, check=True, capture_output=True, text=True
        )
        return done.stdout

    def leader_of(self, queue: str) -> str:
        """The name of the node that leads this quorum queue."""
        rows = json.loads(self.control("--formatter=json", "list_queues", "name", "leader"))
        return str({row["name"]: row["leader"] for row in rows}[queue])

    def remove(self) -> None:
        """End it and remove its files."""
        if self._process is not None:
            self.resume()
            self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def log_tail(self) -> str:
        """The end of what it wrote."""
        return (self._folder / "output").read_text(errors="replace")[-2000:]

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        everyone = self._everyone()
        self._signal(number)
        self._process.wait(_PATIENCE_S)
        # The script that was started may be gone before the server that it started.
        _, alive = psutil.wait_procs(everyone, timeout=_PATIENCE_S)
        for process in alive:
            process.kill()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        for process in self._everyone():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _everyone(self) -> list[psutil.Process]:
        assert self._process is not None, "RabbitMQ is not running"
        try:
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """A RabbitMQ for tests that use `broker_prefix`: the one that is there, or one of our own."""
    given = os.environ.get("FORETELL_TEST_BROKER_URL")
    if given or answers(_USUAL_URL):
        yield given or _USUAL_URL
        return
    server = PrivateRabbitMQ(rabbitmq_programs())
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


_HAS_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_HAS_FAILED] = True
    return report


@pytest.fixture(scope="session")
def _spare_rabbitmq() -> Iterator[list[PrivateRabbitMQ]]:
    """The private server that no test uses at the moment, if there is one: to start one takes seconds."""
    spare: list[PrivateRabbitMQ] = []
    try:
        yield spare
    finally:
        for server in spare:
            server.remove()


@pytest.fixture
def private_rabbitmq(
    request: pytest.FixtureRequest, _spare_rabbitmq: list[PrivateRabbitMQ]
) -> Iterator[PrivateRabbitMQ]:
    """A running server that the test may stop and kill. Queues of other tests may lie on it: use a prefix."""
    server = _spare_rabbitmq.pop() if _spare_rabbitmq else PrivateRabbitMQ(rabbitmq_programs())
    try:
        server.start()
        yield server
    finally:
        if request.node.stash.get(_HAS_FAILED, False):
            # In what state is it, and did it perhaps make the test fail? The next one gets a new one.
            server.remove()
        else:
            _spare_rabbitmq.append(server)


@pytest.fixture(scope="session")
def strict_rabbitmq() -> Iterator[PrivateRabbitMQ]:
    """A running server that refuses messages of more than `STRICT_BYTES`. Use a prefix, and don't kill it."""
    server = PrivateRabbitMQ(rabbitmq_programs(), f"max_message_size = {STRICT_BYTES}")
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def _cluster() -> Iterator[list[PrivateRabbitMQ]]:
    nodes = [PrivateRabbitMQ(rabbitmq_programs())]
    try:
        nodes[0].start()
        nodes += [PrivateRabbitMQ(rabbitmq_programs(), beside=nodes[0]) for _ in range(2)]
        for node in nodes[1:]:
            node.start()
        yield nodes
    finally:
        for node in reversed(nodes):
            node.remove()


@pytest.fixture
def rabbitmq_cluster(_cluster: list[PrivateRabbitMQ]) -> list[PrivateRabbitMQ]:
    """Three running nodes of one cluster, all of which the test may kill. Other tests' queues may lie there."""
    for node in _cluster:
        node.start()
    return _cluster


@pytest.fixture
def private_prefix() -> str:
    """A prefix for the queues of one test on `private_rabbitmq`."""
    return f"test-{secrets.token_hex(6)}."


@pytest.fixture
def broker_prefix(rabbitmq_url: str) -> Iterator[str]:
    """A prefix for the queues of one test. Afterwards those of the contracts (and of the pool `gpu`) are deleted."""
    prefix = f"test-{secrets.token_hex(6)}."
    try:
        yield prefix
    finally:
        used = [queues.TASKS, queues.RESULTS, queues.tasks_queue("gpu")]
        names = [prefix + name for queue in used for name in (queue, queues.dead_queue(queue))]
        exchanges = [prefix + queues.EVENTS, prefix + "ml_dead_letters"]
        _aside(_delete(rabbitmq_url, names, exchanges))


async def _delete(url: str, names: list[str], exchanges: list[str]) -> None:
    async with asyncio.timeout(30):
        connection = await aiormq.connect(url)
        try:
            channel = await connection.channel()
            for name in names:
                await channel.queue_delete(name)
            for exchange in exchanges:
                await channel.exchange_delete(exchange)
        finally:
            await connection.close()


async def _connect(url: str) -> None:
    async with asyncio.timeout(10):
        connection = await aiormq.connect(url)
        await connection.close()


def answers(url: str) -> bool:
    """Whether a RabbitMQ that takes our password listens at `url`."""
    try:
        address = URL(url)
        socket.create_connection((address.host or "", address.port or 5672), timeout=10).close()
        _aside(_connect(url))
    except (OSError, TimeoutError, aiormq.exceptions.AMQPError):
        return False
    return True


def _aside(work: Coroutine[object, object, None]) -> None:
    # In another thread, so that it can be done inside and outside of an event loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


def _missing(what: str) -> NoReturn:
    """Skip the test for want of `what`; on the build server, where nothing may be missing, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def rabbitmq_programs() -> Path:
    """The folder of `rabbitmq-server` and `rabbitmqctl`: not Debian's wrappers, which change the user."""
    for folder in (Path("/usr/lib/rabbitmq/bin"), Path("/opt/rabbitmq/sbin")):
        if (folder / "rabbitmq-server").exists():
            return folder
    found = shutil.which("rabbitmq-server")
    if found is None:
        _missing(
            "This test needs RabbitMQ: set FORETELL_TEST_BROKER_URL, or install a server (Debian: rabbitmq-server)."
            " Tests that kill the server need it installed."
        )
    return Path(found).resolve().parent


def _epmd(programs: Path) -> str:
    found = shutil.which("epmd") or shutil.which("epmd", path="/usr/lib/erlang/bin:/usr/local/lib/erlang/bin")
    if found is None:
        _missing(f"This test starts RabbitMQ from {programs} and does not find Erlang's epmd on the PATH.")
    return found


def _name_server(program: str, port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [program, "-port", str(port), "-address", "127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
