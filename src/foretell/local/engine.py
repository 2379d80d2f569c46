"""The local engine: all services as processes of this machine, under a supervisor in the background."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from foretell.kit.errors import ForetellError
from foretell.local import health
from foretell.local.addresses import addresses_of
from foretell.local.configuration import STOP_WAIT_S, render
from foretell.local.installation import EngineRecord, Installation, Program, settings_of
from foretell.local.planning import Planning, check_count
from foretell.local.remote import ProcessState, Supervisor, SupervisorAway
from foretell.local.services import SERVICES, Service, is_here, runnable
from foretell.local.starting import Start
from foretell.local.status import ProcessStatus, status_of

#: The command of the supervisor for a service, without the service's name.
SERVE_COMMAND = (sys.executable, "-P", "-m", "foretell.cli", "serve")
_SUPERVISOR_STARTS_S = 20.0
_LOOK_EVERY_S = 0.1
#: How often a stop looks for processes that were started meanwhile; a dead supervisor starts no more.
_STRAGGLERS = 5


class NotRunning(ForetellError):
    """Foretell is not running here ({folder}). Start it: foretell up, or python start.py --start"""

    code = "not_running"


class Unwatched(NotRunning):
    """The supervisor was killed; {count} processes run unwatched. Start again (they are replaced), or stop them."""

    code = "unwatched"


class SupervisorFailed(ForetellError):
    """The supervisor did not start: {reason}"""

    code = "supervisor_failed"


class StopFailed(ForetellError):
    """These processes could not be ended: {pids}. End them by hand."""

    code = "stop_failed"


class LocalEngine:
    """Starts, watches, scales and stops the services of one installation.

    Callers of `launch`, `scale` and `stop` must hold `installation.lock`.
    """

    def __init__(
        self,
        installation: Installation,
        *,
        table: Sequence[Service] = SERVICES,
        serve_command: Sequence[str] = SERVE_COMMAND,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`, in seconds, is used to detect a start without progress."""
        self.installation = installation
        self._table = tuple(table)
        self._serve_command = tuple(serve_command)
        self._environment = environment
        self._planning = Planning(table, environment)
        self._start = Start(table, installation.logs_dir, clock)
        self._supervisor = Supervisor(installation.socket)
        #: The supervisor, if it is our child: then we must wait for it when it ends.
        self._child: subprocess.Popen[bytes] | None = None

    def record(self) -> EngineRecord | None:
        """The record of the running engine, or None."""
        record = self.installation.read()
        if record is None or not self._answers():
            return None
        return record

    def _answers(self) -> bool:
        try:
            return self._supervisor.pid() > 0
        except SupervisorAway:
            return False

    def running_record(self) -> EngineRecord:
        """The record of the running engine. Raises `NotRunning`, `Unwatched`."""
        record = self.record()
        if record is None:
            if self.installation.record_file.exists():
                from foretell.local import leftovers

                count = len(leftovers.processes_of(self.installation.data_dir))
                if count:
                    raise Unwatched(count=count)
            raise NotRunning(folder=self.installation.data_dir)
        return record

    def workers(self, record: EngineRecord) -> list[Program]:
        """The processes that scale."""
        scaling = {service.name for service in self._table if service.scales}
        return [program for program in record.programs if program.service in scaling]

    def followers(self, record: EngineRecord) -> list[Program]:
        """The processes that read model packages and apply their changes."""
        following = {service.name for service in self._table if service.reads_models}
        return [program for program in record.programs if program.service in following]

    def pids(self) -> dict[str, int]:
        """The current process id of each program, 0 for none. Raises `NotRunning`."""
        try:
            return {name: process.pid for name, process in self._supervisor.processes().items()}
        except SupervisorAway as error:
            raise NotRunning(folder=self.installation.data_dir) from error

    # Start

    def clear_leftovers(self) -> int:
        """End processes that a killed supervisor left behind; returns how many."""
        from foretell.local import leftovers

        left = leftovers.processes_of(self.installation.data_dir)
        leftovers.end(left)
        self._forget_run()
        return len(left)

    def _forget_run(self) -> None:
        for file in (self.installation.record_file, self.installation.pid_file, self.installation.socket):
            file.unlink(missing_ok=True)

    def launch(self, workers: int | None = None) -> list[str]:
        """Start the supervisor with all services; returns remarks on services that are left out.

        Raises `PortTwice`, `PortTaken`, `InvalidWorkerCount`, `SupervisorFailed`, `FolderUnusable`, `HasMoved`,
        `Misconfigured`.
        """
        if workers is not None:
            check_count(workers)
        data_dir = self.installation.data_dir
        database_url = self._planning.url("FORETELL_DATABASE_URL", f"sqlite:///{data_dir / 'foretell.db'}")
        broker_url = self._planning.url("FORETELL_BROKER_URL", f"sqlite:///{data_dir / 'broker.db'}")
        _check_urls(database_url, broker_url)
        self.installation.check_not_moved(database_url)
        services, remarks = runnable(self._table, self._environment)
        programs = self._planning.programs(services, workers)
        self.installation.prepare()
        if self.installation.restore_plan.exists():
            # Imported here, because its imports would make every start slow.
            from foretell.local.backups.restoring import finish

            finish(self.installation)
            remarks.append("Finished a restore that had been broken off.")
        self.installation.write_configuration(render(programs))
        record = EngineRecord(
            supervisor_pid=0,
            socket=str(self.installation.socket),
            database_url=database_url,
            broker_url=broker_url,
            environment=self._environment.get("FORETELL_ENVIRONMENT") or "development",
            programs=programs,
            settings=settings_of(self._environment),
        )
        self.installation.write(record)
        self._start.begin()
        pid = self._spawn_supervisor(programs)
        self.installation.write(replace(record, supervisor_pid=pid))
        return remarks

    def _spawn_supervisor(self, programs: list[Program]) -> int:
        from foretell.local.leftovers import MARK

        environment = {
            **addresses_of(programs),
            **{name: value for name, value in self._environment.items() if name not in _SET_PER_PROCESS},
            "FORETELL_BOT_SECRET": self._environment.get("FORETELL_BOT_SECRET") or self.installation.bot_secret(),
            MARK: str(self.installation.data_dir),
            "FORETELL_DATA_DIR": str(self.installation.data_dir),
            "FORETELL_ENGINE_LOGS": str(self.installation.logs_dir).replace("%", "%%"),
            "FORETELL_ENGINE_SOCKET": str(self.installation.socket),
            "FORETELL_ENGINE_COMMAND": shlex.join(self._serve_command),
        }
        output = self.installation.run_dir / "supervisor.out"
        with output.open("wb") as stream:
            child = subprocess.Popen(  # noqa: S603 - our own module
                [
                    sys.executable, "-P", "-m", "foretell.local.supervision",
                    "-n", "-c", str(self.installation.configuration_file),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )  # fmt: skip
        self._child = child
        deadline = time.monotonic() + _SUPERVISOR_STARTS_S
        while not self._answers():
            if child.poll() is not None or time.monotonic() > deadline:
                said = output.read_text(errors="replace").strip().splitlines()
                self.stop(force=True)
                raise SupervisorFailed(reason=" ".join(said) or f"exit code {child.returncode}")
            time.sleep(0.02)
        return child.pid

    def until_healthy(self, names: Iterable[str] | None = None) -> Iterator[list[ProcessStatus]]:
        """Watch a start of the processes `names`, or of all: see `Start.until_healthy`."""
        return self._start.until_healthy(lambda done: self.status(skip_health=done), names)

    # Status

    def status(self, *, skip_health: Iterable[str] = ()) -> list[ProcessStatus]:
        """Every process with its health; without a request to those in `skip_health`. Raises `NotRunning`."""
        record = self.running_record()
        try:
            processes = self._supervisor.processes()
        except SupervisorAway as error:
            raise NotRunning(folder=self.installation.data_dir) from error
        known = {program.name: program for program in record.programs}
        # A worker that is being removed is known only to the supervisor.
        leaving = [
            Program(name, name.rpartition("-")[0] or name, name, "", 0) for name in processes if name not in known
        ]
        asked = [
            program
            for program in record.programs
            if program.name not in skip_health and processes.get(program.name, _ABSENT).pid
        ]
        answers = health.ask_all(asked)
        return [
            status_of(program, processes.get(program.name, _ABSENT), answers.get(program.name))
            for program in [*record.programs, *leaving]
        ]

    def left_out(self, record: EngineRecord) -> dict[str, str]:
        """The services that were not started because of a missing setting, with that setting."""
        running = {program.service for program in record.programs}
        return {
            service.name: f"off (no {', '.join(service.needs)})"
            for service in self._table
            if service.needs and service.name not in running and is_here(service)
        }

    def not_working(self) -> dict[str, str]:
        """Unhealthy services that a start does not wait for, with the reasons."""
        unawaited = {service.name for service in self._table if not service.awaited}
        return {
            status.name: status.reason or f"it is {status.state}"
            for status in self.status()
            if status.service in unawaited and not status.healthy
        }

    # Scale

    def scale(self, workers: int) -> list[str]:
        """Change the number of workers to `workers`; returns the names of new ones.

        Returns when removed workers have finished their tasks. Raises `NotRunning`, `InvalidWorkerCount`.
        """
        check_count(workers)
        record = self.running_record()
        service = next(service for service in self._table if service.scales)
        present = self.workers(record)
        wanted = {f"{service.name}-{number}" for number in range(1, workers + 1)}
        kept = [program for program in record.programs if program not in present or program.name in wanted]
        missing = sorted(wanted - {program.name for program in kept}, key=lambda name: int(name.rpartition("-")[2]))
        # A worker that an interrupted scaling is still removing must be gone before its name is used again.
        self._reconcile(replace(record, programs=kept))
        added = self._planning.more(service.name, missing, record.programs)
        if added:
            self._start.begin()
            self._reconcile(replace(record, programs=[*kept, *added]))
        return [program.name for program in added]

    def _reconcile(self, record: EngineRecord) -> None:
        """Make the supervisor run exactly the recorded programs."""
        self.installation.write(record)
        self.installation.write_configuration(render(record.programs))
        wanted = {program.name for program in record.programs}
        present = self._supervisor.processes()
        self._supervisor.add([name for name in wanted if name not in present])
        leaving = {name for name in present if name not in wanted}
        for name in self._wait_until_over(leaving, STOP_WAIT_S + 5):
            self._supervisor.forget(name)

    def _wait_until_over(self, names: set[str], timeout_s: float) -> set[str]:
        """Stop processes and wait for their end; returns those that have ended."""
        deadline = time.monotonic() + timeout_s
        while names:
            processes = self._supervisor.processes()
            waiting = {name for name in names if name in processes and not processes[name].over}
            if not waiting or time.monotonic() > deadline:
                return names - waiting
            for name in waiting:
                if processes[name].state != "STOPPING":
                    self._supervisor.request_stop(name)
            time.sleep(_LOOK_EVERY_S)
        return names

    # Stop

    def _stop_last(self) -> set[str]:
        record = self.installation.read()
        last = {service.name for service in self._table if service.stops_last}
        return {program.name for program in record.programs if program.service in last} if record is not None else set()

    def stop(self, *, force: bool = False) -> bool:
        """End all processes and delete the run files; returns whether there was anything to end.

        Each service gets SIGTERM and finishes its current work; `force` kills at once. Raises `StopFailed`.
        """
        from foretell.local import leftovers

        data_dir = self.installation.data_dir
        was_running = False
        if not force:
            try:
                # All at once, except those that the others need until their end; supervisord's own shutdown would stop
                # them one after the other.
                last = self._stop_last()
                self._wait_until_over(set(self._supervisor.processes()) - last, STOP_WAIT_S + 0.5)
                self._wait_until_over(last, STOP_WAIT_S + 0.5)
                self._supervisor.request_shutdown()
                was_running = True
                leftovers.wait_for_none(data_dir, timeout_s=5)
            except SupervisorAway:
                pass
        left = leftovers.processes_of(data_dir)
        leftovers.end(left, kill_after_s=0 if force or was_running else STOP_WAIT_S)
        for _ in range(_STRAGGLERS):
            # A supervisor may have started a process just before it was killed, after our search.
            stragglers = leftovers.processes_of(data_dir)
            if not stragglers:
                break
            leftovers.end(stragglers, kill_after_s=0)
        if self._child is not None:
            self._child.wait(timeout=5)
            self._child = None
        alive = leftovers.processes_of(data_dir)
        if alive:
            raise StopFailed(pids=", ".join(str(process.pid) for process in alive))
        self.installation.remove_run_files()
        return was_running or bool(left)


_SET_PER_PROCESS = ("FORETELL_PORT", "FORETELL_INSTANCE", "FORETELL_STANDSTILLS")
_ABSENT = ProcessState(name="", state="STOPPED", pid=0, started_at=0, uptime_s=0)


def _check_urls(database_url: str, broker_url: str) -> None:
    """Raises `Misconfigured` for settings that every process would refuse, before any of them is started."""
    # Imported here, because their imports would make `foretell status` slow.
    from foretell.broker.connect import check_url
    from foretell.kit.sqlite_address import sqlite_path

    if database_url.startswith("sqlite:"):
        sqlite_path(database_url)
    else:
        from foretell.kit.postgresql_address import read_postgresql_url

        read_postgresql_url(database_url)
    check_url(broker_url)
