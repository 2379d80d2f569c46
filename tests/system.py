"""A private Foretell for tests and benchmarks: real processes of this machine, on ports and data of their own."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from uuid import UUID

from sqlalchemy import select

from foretell.broker.connect import connect
from foretell.broker.port import Broker, BrokerUnavailable
from foretell.contracts import queues
from foretell.domain.accounts import registration
from foretell.domain.accounts.tokens import AccessTokens
from foretell.domain.credits import ledger
from foretell.domain.migrations.run import migrate
from foretell.domain.predictions.audit import Finding, audit
from foretell.domain.predictions.tables import predictions
from foretell.kit.clock import uuid7
from foretell.kit.database import Database
from foretell.kit.standstill_codes import STACKS_SIGNAL
from tests.fork_server import Forked, ForkServer
from tests.ports import free_port

_START_S = 60.0
_STOP_S = 30.0

#: A flight that the model knows.
FLIGHT = {"carrier": "AA", "departure_time": "17:45", "distance_miles": 1389, "weather_code": 3}


@dataclass
class Running:
    """One process of the system."""

    service: str
    instance: str
    host: str
    port: int
    process: subprocess.Popen[bytes] | Forked
    started_at: float = field(default_factory=time.monotonic)


class System:
    """App, dispatcher and workers, started and ended by us; the broker and the database are given."""

    #: What starts a service in a small part of the time; benchmarks start all as users do.
    fork_servers: ClassVar[Mapping[str, ForkServer]] = {}

    def __init__(
        self, folder: Path, *, database_url: str, broker_url: str, broker_prefix: str = "", **environment: str
    ) -> None:
        self.folder = folder
        self.database_url = database_url
        self.broker_url = broker_url
        self.broker_prefix = broker_prefix
        self.app_port = free_port()
        self.secret = secrets.token_hex(32)
        self.processes: list[Running] = []
        #: How many of each service should run; `supervised` and `heal` see to it.
        self.wanted: dict[str, int] = {}
        self._environment = environment
        self._numbers: dict[str, int] = {}

    @property
    def url(self) -> str:
        """Where the app answers."""
        return f"http://{self.host_of('app')}:{self.app_port}"

    def host_of(self, service: str) -> str:
        """The address on which processes of `service` answer."""
        return "127.0.0.1"

    def launcher_of(self, service: str) -> list[str]:
        """What stands in front of the command of each process of `service`; the process must be the command's own."""
        return []

    def network_of(self, service: str) -> str | None:
        """The file of the network namespace of each process of `service`; None: that of whoever starts it."""
        return None

    def environment(self, service: str, instance: str, port: int) -> Mapping[str, str]:
        """What a process is told."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORETELL_")}
        return {
            **inherited,
            "FORETELL_DATABASE_URL": self.database_url,
            "FORETELL_BROKER_URL": self.broker_url,
            "FORETELL_BROKER_PREFIX": self.broker_prefix,
            "FORETELL_DATA_DIR": str(self.folder),
            "FORETELL_SECRET_KEY": self.secret,
            "FORETELL_HOST": self.host_of(service),
            "FORETELL_PORT": str(port),
            "FORETELL_INSTANCE": instance,
            **self._environment,
        }

    def spawn_app_on_another_port(self) -> Running:
        """Start an app beside the one that clients know. To be ended by the caller."""
        return self.spawn("app", port=free_port())

    def spawn(self, service: str, *, port: int | None = None) -> Running:
        """Start one more process of `service`; it logs into the system's folder."""
        number = self._numbers[service] = self._numbers.get(service, 0) + 1
        instance = f"{service}-{number}"
        port = port or (self.app_port if service == "app" else free_port())
        process = self._launch(service, self.environment(service, instance, port), self.folder / f"{instance}.log")
        running = Running(service, instance, self.host_of(service), port, process)
        self.processes.append(running)
        return running

    def _launch(self, service: str, environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes] | Forked":
        launcher = self.launcher_of(service)
        # What the linker is told counts only at the start of a program.
        if service in self.fork_servers and not launcher and "LD_PRELOAD" not in environment:
            return self.fork_servers[service].start(
                environment=environment, output=log, folder=self.folder, network=self.network_of(service)
            )
        command = [sys.executable, "-c", f"from foretell.services.{service}.app import main; main()"]
        with log.open("ab") as output:
            return subprocess.Popen(
                [*launcher, *command],
                env=dict(environment),
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,
            )

    async def start(self, *, workers: int = 3) -> None:
        """Start everything and wait until it is healthy."""
        self.wanted = {"app": 1, "dispatcher": 1, "worker": workers}
        self.replace_missing()
        await self.wait_healthy()

    def replace_missing(self) -> None:
        """Start what should run and does not."""
        for service, count in self.wanted.items():
            for _ in range(count - len(self.alive(service))):
                self.spawn(service)

    async def scale(self, service: str, count: int) -> None:
        """Let `count` processes of a service run, healthy; what is too many is ended politely, the oldest first."""
        self.wanted[service] = count
        await self.end(self.alive(service)[: max(0, len(self.alive(service)) - count)])
        await self.heal()

    async def end(self, ending: Iterable[Running], number: int = signal.SIGTERM) -> list[int]:
        """Signal processes and return their exit statuses. Raises when one is still there after 30 s."""
        ending = list(ending)
        for running in ending:
            running.process.send_signal(number)
        await wait_until(
            lambda: all(running.process.poll() is not None for running in ending),
            timeout_s=_STOP_S,
            what=f"{[running.instance for running in ending]} to exit after {signal.Signals(number).name}",
        )
        return [running.process.returncode for running in ending]

    async def heal(self) -> None:
        """Have everything running that should run, and wait until it is healthy; what exits meanwhile is replaced.

        What stands still fails the test, and says where it stands.
        """
        for attempt in range(5):
            self.replace_missing()
            try:
                await self.wait_healthy()
            except RuntimeError:
                if attempt == 4:
                    raise
            else:
                return

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """Replace whatever exits, as the supervisor of an installation does; everything is healthy at the end."""

        async def look_after() -> None:
            while True:
                self.replace_missing()
                await asyncio.sleep(0.05)

        task = asyncio.create_task(look_after())
        try:
            yield
            # What was killed last may not have died yet, and is replaced then.
            await self.heal()
        finally:
            task.cancel()

    async def wait_healthy(self) -> None:
        """Wait until every process that should run says that it is healthy."""
        deadline = time.monotonic() + _START_S
        for running in self.alive():
            while not await _is_healthy(running):
                ended = running.process.poll() is not None
                if ended or time.monotonic() > deadline:
                    said = self.log_of(running)[-3000:] if ended else await self.stacks_of(running)
                    raise RuntimeError(f"{running.instance} is not healthy:\n{said}")
                await asyncio.sleep(0.05)

    async def stacks_of(self, running: Running) -> str:
        """The end of a process's log, behind which it was told to write where each of its threads is."""
        running.process.send_signal(STACKS_SIGNAL)
        await asyncio.sleep(1)
        return self.log_of(running)[-12_000:]

    def alive(self, service: str | None = None) -> list[Running]:
        """The processes that run, of one service or of all."""
        return [r for r in self.processes if r.process.poll() is None and service in (None, r.service)]

    def kill(self, running: Running, number: int = signal.SIGKILL) -> None:
        """Send a signal to one of our processes."""
        running.process.send_signal(number)

    def log_of(self, running: Running) -> str:
        """Everything that a process has written."""
        return (self.folder / f"{running.instance}.log").read_text(errors="replace")

    @asynccontextmanager
    async def running(self, *, workers: int = 3) -> AsyncIterator[None]:
        """Healthy inside, gone afterwards."""
        try:
            await self.start(workers=workers)
            yield
        finally:
            await self.stop()

    async def stop(self) -> None:
        """End every process, politely first."""
        for running in self.alive():
            running.process.send_signal(signal.SIGCONT)
            running.process.terminate()
        deadline = time.monotonic() + _STOP_S
        while self.alive() and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for running in self.alive():
            # What does not end when it is told to stands somewhere, and this is the last chance to hear where.
            print(f"{running.instance} had to be killed:\n{await self.stacks_of(running)}", file=sys.__stderr__)
            running.process.kill()
        for running in self.processes:
            running.process.wait()

    async def new_user(self, *, credits: int = 1_000_000) -> tuple[UUID, str]:
        """A user with that many credits, and an access token for it."""
        database = Database(self.database_url)
        try:
            await migrate(database)
            async with database.transaction() as connection:
                user = await registration.register(
                    connection, username=f"user-{uuid7().hex}", password_hash="!", grant_credits=credits
                )
        finally:
            await database.close()
        token, _ = AccessTokens(self.secret, lifetime_s=86_400).issue(user)
        return user.id, token

    async def balance(self, user_id: UUID) -> ledger.Balance:
        """The credits of a user, from the database itself."""
        database = Database(self.database_url)
        try:
            async with database.snapshot() as connection:
                return await ledger.balance(connection, user_id)
        finally:
            await database.close()

    async def audit(self) -> list[Finding]:
        """What `foretell audit` finds."""
        database = Database(self.database_url, statement_timeout_s=300)
        try:
            async with database.snapshot() as connection:
                return await audit(connection)
        finally:
            await database.close()

    async def count(self, status: str | None = None) -> int:
        """How many predictions there are, with one status or with any."""
        return await self.count_where(f"status = '{status}'" if status else "true")

    async def count_where(self, condition: str) -> int:
        """How many predictions fit this SQL."""
        database = Database(self.database_url)
        try:
            return await self._count_where(database, condition)
        finally:
            await database.close()

    async def _count_where(self, database: Database, condition: str) -> int:
        async with database.snapshot() as connection:
            found = await connection.exec_driver_sql(f"SELECT count(*) FROM predictions WHERE {condition}")
            return int(found.scalar_one())

    async def drain(self, *, timeout_s: float = 90.0) -> None:
        """Wait until no prediction is queued any more."""
        deadline = time.monotonic() + timeout_s
        # One connection for all looks: to make one takes longer than to look.
        database = Database(self.database_url)
        try:
            while left := await self._count_where(database, "status = 'queued'"):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{left} predictions are still queued after {timeout_s:g} s")
                await asyncio.sleep(0.1)
        finally:
            await database.close()

    async def statuses(self, ids: Iterable[UUID]) -> dict[UUID, tuple[str, str | None]]:
        """Status and error code of these predictions; those that do not exist are missing."""
        wanted = list(ids)
        found: dict[UUID, tuple[str, str | None]] = {}
        columns = predictions.c
        database = Database(self.database_url, statement_timeout_s=60)
        try:
            async with database.snapshot() as connection:
                for start in range(0, len(wanted), 500):
                    some = columns.id.in_(wanted[start : start + 500])
                    rows = await connection.execute(select(columns.id, columns.status, columns.error_code).where(some))
                    found.update({row.id: (row.status, row.error_code) for row in rows})
        finally:
            await database.close()
        return found

    @asynccontextmanager
    async def broker(self) -> AsyncIterator[Broker]:
        """A connection of our own to the broker; the queues of tasks and results are there."""
        broker = await connect(self.broker_url, name="test", prefix=self.broker_prefix)
        try:
            while True:
                try:
                    await broker.ensure_queue(queues.TASKS)
                    await broker.ensure_queue(queues.RESULTS)
                    break
                except BrokerUnavailable:
                    await asyncio.sleep(0.1)
            yield broker
        finally:
            await broker.close()

    async def ready(self, queue: str) -> int:
        """How many messages wait in a queue."""
        async with self.broker() as broker:
            return (await broker.depth(queue)).ready


async def wait_until(condition: Callable[[], object], *, timeout_s: float, what: str) -> None:
    """Wait until `condition()` is true; raise `TimeoutError`, saying for what, when it is not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s in vain for {what}")
        await asyncio.sleep(0.02)


async def _is_healthy(running: Running) -> bool:
    # By hand: it is asked so often that a client which can do everything took more of the processor than all answers.
    writer = None
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(running.host, running.port)
            host = f"{running.host}:{running.port}"
            writer.write(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return (await reader.readline()).split()[1:2] == [b"200"]
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()


@asynccontextmanager
async def running_system(
    folder: Path,
    *,
    database_url: str,
    broker_url: str,
    broker_prefix: str = "",
    workers: int = 3,
    **environment: str,
) -> AsyncIterator[System]:
    """A system that is healthy inside and gone afterwards."""
    system = System(
        folder, database_url=database_url, broker_url=broker_url, broker_prefix=broker_prefix, **environment
    )
    async with system.running(workers=workers):
        yield system
