"""The local engine: all services as processes of this machine, under a supervisor that outlives the terminal."""

import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from foretell.kit.errors import ForetellError
from foretell.local import health, ports
from foretell.local.addresses import addresses_of
from foretell.local.configuration import STOP_WAIT_S, render
from foretell.local.installation import EngineRecord, Installation, Program
from foretell.local.log_files import LogLine, words_since
from foretell.local.remote import ProcessState, Supervisor, SupervisorAway
from foretell.local.services import SERVICES, Service, is_here, runnable
from foretell.local.status import ProcessStatus, status_of

#: What the supervisor runs, before the name of the service.
SERVE_COMMAND = (sys.executable, "-P", "-m", "foretell.cli", "serve")
MAX_WORKERS = 64

_LOOPBACK = "127.0.0.1"
_SUPERVISOR_STARTS_S = 20.0
#: A start without any progress for this long has failed, ...
_NO_PROGRESS_S = 120.0
#: ... but where all that is left is models that load, and none was ready for this long, it is over: they go on alone.
STILL_LOADING_S = 600.0
#: A process that has ended this often before it was ever healthy will not be healthy the next time.
HOPELESS_AFTER_STARTS = 3
#: ... and for what no start depends on, it waits so long, in case that it is there at once.
_NOT_AWAITED_S = 5.0
_LOOK_EVERY_S = 0.1


class NotRunning(ForetellError):
    """Foretell is not running here ({folder}). Start it: foretell up, or python start.py --start"""

    code = "not_running"


class Unwatched(NotRunning):
    """The supervisor was killed; {count} processes run unwatched. Start again (they are replaced), or stop them."""

    code = "unwatched"


class InvalidWorkerCount(ForetellError):
    """The number of workers must be from 1 to {most}, not {count}."""

    code = "invalid_worker_count"


class SupervisorFailed(ForetellError):
    """The supervisor did not start: {reason}"""

    code = "supervisor_failed"


class StartFailed(ForetellError):
    """{what}"""

    code = "start_failed"

    def __init__(self, reasons: Mapping[str, str], last_words: Sequence[LogLine]) -> None:
        """`reasons` says of each process that did not start why."""
        super().__init__(what=" ".join(f"{name} did not start: {reason}" for name, reason in reasons.items()))
        #: The last lines that they wrote to their logs.
        self.last_words = list(last_words)


class StopFailed(ForetellError):
    """These processes could not be ended: {pids}. End them by hand."""

    code = "stop_failed"


class LocalEngine:
    """Starts, watches, scales and stops the services of one installation.

    What changes something (`launch`, `scale`, `stop`) wants to be called under `installation.lock`.
    """

    def __init__(
        self,
        installation: Installation,
        *,
        table: Iterable[Service] = SERVICES,
        serve_command: Sequence[str] = SERVE_COMMAND,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """By `clock`, in seconds, a start finds that there is no progress."""
        self.installation = installation
        self._table = tuple(table)
        self._serve_command = tuple(serve_command)
        self._environment = environment
        self._clock = clock
        self._supervisor = Supervisor(installation.socket)
        #: The supervisor, if it is our child: then we have to collect it when it ends.
        self._child: subprocess.Popen[bytes] | None = None
        #: How long each log was when we last started something: what stands behind is of now.
        self._log_sizes: dict[str, int] = {}

    def record(self) -> EngineRecord | None:
        """What runs here, or None when nothing does."""
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
        """What runs here. Raises `NotRunning`, `Unwatched`."""
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
        """The processes that read the packages of models, and follow when these change."""
        following = {service.name for service in self._table if service.reads_models}
        return [program for program in record.programs if program.service in following]

    def pids(self) -> dict[str, int]:
        """The process that each program is at the moment, 0 for none. Raises `NotRunning`."""
        try:
            return {name: process.pid for name, process in self._supervisor.processes().items()}
        except SupervisorAway as error:
            raise NotRunning(folder=self.installation.data_dir) from error

    # Start

    def clear_leftovers(self) -> int:
        """End what an earlier run left behind when its supervisor was killed; returns how many processes."""
        from foretell.local import leftovers

        left = leftovers.processes_of(self.installation.data_dir)
        leftovers.end(left)
        self._forget_run()
        return len(left)

    def _forget_run(self) -> None:
        for file in (self.installation.record_file, self.installation.pid_file, self.installation.socket):
            file.unlink(missing_ok=True)

    def launch(self, workers: int | None = None) -> list[str]:
        """Start the supervisor with all services; returns remarks on what is left out.

        Raises `PortTaken`, `InvalidWorkerCount`, `SupervisorFailed`, `FolderUnusable`.
        """
        if workers is not None:
            _check_count(workers)
        services, remarks = runnable(self._table, self._environment)
        programs = self._plan(services, workers)
        self.installation.prepare()
        self.installation.write_configuration(render(programs))
        data_dir = self.installation.data_dir
        record = EngineRecord(
            supervisor_pid=0,
            socket=str(self.installation.socket),
            database_url=self._url("FORETELL_DATABASE_URL", f"sqlite:///{data_dir / 'foretell.db'}"),
            broker_url=self._url("FORETELL_BROKER_URL", f"sqlite:///{data_dir / 'broker.db'}"),
            environment=self._environment.get("FORETELL_ENVIRONMENT") or "development",
            programs=programs,
        )
        self.installation.write(record)
        self._note_log_sizes()
        pid = self._spawn_supervisor(programs)
        self.installation.write(replace(record, supervisor_pid=pid))
        return remarks

    def _url(self, variable: str, default: str) -> str:
        url = self._environment.get(variable) or default
        if url.startswith("sqlite:///"):
            # Written down for commands that may run in another folder.
            return f"sqlite:///{os.path.abspath(url.removeprefix('sqlite:///'))}"
        return url

    def _plan(self, services: list[Service], workers: int | None) -> list[Program]:
        host = self._environment.get("FORETELL_HOST") or _LOOPBACK
        programs: list[Program] = []
        for service in services:
            port = service.port_from(self._environment)
            if port:
                ports.check_free(host, port, service.port_variable)
                programs.append(_program(service.name, service.name, host, port))
        for service in services:
            if not service.port:
                count = workers if service.scales and workers is not None else service.count
                names = [f"{service.name}-{number}" for number in range(1, count + 1)]
                programs += self._more(service.name, names if service.scales else [service.name], programs)
        return programs

    def _more(self, service: str, names: list[str], others: list[Program]) -> list[Program]:
        """Processes for `names`, each on a free loopback port."""
        taken = {program.port for program in others} | {each.port_from(self._environment) for each in self._table}
        programs = []
        for name in names:
            port = ports.free_port(_LOOPBACK, taken)
            taken.add(port)
            programs.append(_program(name, service, _LOOPBACK, port))
        return programs

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
        """Watch a start: yields the status of the processes (`names`, or all) until every one has loaded its models.

        Waits as long as there is progress. Models that load on and on are left to themselves: their processes are up,
        and answer for the others. So is a service that no start waits for. Raises `StartFailed` when a process ends
        again and again, or is not healthy and nothing has happened for two minutes.
        """
        wanted = None if names is None else set(names)
        awaited = {service.name for service in self._table if service.awaited}
        seen: dict[str, set[int]] = {}
        done: dict[str, ProcessStatus] = {}
        before, progress_at = None, self._clock()
        while True:
            statuses = [
                done.get(status.name, status)
                for status in self.status(skip_health=done)
                if wanted is None or status.name in wanted
            ]
            done |= {status.name: status for status in statuses if status.healthy and not status.loading}
            yield statuses
            if len(done) == len(statuses):
                return
            now = [
                (status.name, status.healthy, status.state, set(status.loading))
                for status in statuses
                if status.service in awaited
            ]
            if now != before:
                before, progress_at = now, self._clock()
            waiting = [status for status in statuses if not status.healthy and status.service in awaited]
            for status in waiting:
                seen.setdefault(status.name, set()).update({status.pid} - {0})
            hopeless = [status for status in waiting if len(seen[status.name]) >= HOPELESS_AFTER_STARTS]
            idle_s = self._clock() - progress_at
            if hopeless or (waiting and idle_s > _NO_PROGRESS_S):
                raise self._start_failed(hopeless or waiting, ended=bool(hopeless))
            loading = any(status.loading for status in statuses)
            if not waiting and idle_s > (STILL_LOADING_S if loading else _NOT_AWAITED_S):
                return
            time.sleep(_LOOK_EVERY_S)

    def _start_failed(self, failed: list[ProcessStatus], *, ended: bool) -> StartFailed:
        reasons: dict[str, str] = {}
        last_words: list[LogLine] = []
        for status in failed:
            file = self.installation.logs_dir / f"{status.name}.log"
            words = words_since(file, self._log_sizes.get(status.name, 0), lines=10)
            wrong = [str(line.fields.get("reason") or line.message) for line in words if line.level in _WRONG]
            said = wrong or ([words[-1].message] if words else ["it ended without a word"])
            reasons[status.name] = said[-1] if ended else status.reason or f"it is {status.state}"
            last_words += words
        return StartFailed(reasons, last_words)

    def _note_log_sizes(self) -> None:
        self._log_sizes = {file.stem: file.stat().st_size for file in self.installation.logs_dir.glob("*.log")}

    # Status

    def status(self, *, skip_health: Iterable[str] = ()) -> list[ProcessStatus]:
        """Every process with its health; those in `skip_health` are not asked. Raises `NotRunning`."""
        record = self.running_record()
        try:
            processes = self._supervisor.processes()
        except SupervisorAway as error:
            raise NotRunning(folder=self.installation.data_dir) from error
        known = {program.name: program for program in record.programs}
        # A worker on its way out stands with the supervisor alone.
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
        """The services that were not started for want of a setting, and which it is."""
        running = {program.service for program in record.programs}
        return {
            service.name: f"off (no {', '.join(service.needs)})"
            for service in self._table
            if service.needs and service.name not in running and is_here(service)
        }

    def not_working(self) -> dict[str, str]:
        """What no start waited for and is not healthy, and why."""
        unawaited = {service.name for service in self._table if not service.awaited}
        return {
            status.name: status.reason or f"it is {status.state}"
            for status in self.status()
            if status.service in unawaited and not status.healthy
        }

    # Scale

    def scale(self, workers: int) -> list[str]:
        """Bring the number of workers to `workers`, the others untouched; returns the names of those added.

        Returns when those removed have finished what they had in hand. Raises `NotRunning`, `InvalidWorkerCount`.
        """
        _check_count(workers)
        record = self.running_record()
        service = next(service for service in self._table if service.scales)
        present = self.workers(record)
        wanted = {f"{service.name}-{number}" for number in range(1, workers + 1)}
        kept = [program for program in record.programs if program not in present or program.name in wanted]
        missing = sorted(wanted - {program.name for program in kept}, key=lambda name: int(name.rpartition("-")[2]))
        # A worker that a broken-off scaling left on its way out must be gone before its name is taken again.
        self._reconcile(replace(record, programs=kept))
        added = self._more(service.name, missing, record.programs)
        if added:
            self._note_log_sizes()
            self._reconcile(replace(record, programs=[*kept, *added]))
        return [program.name for program in added]

    def _reconcile(self, record: EngineRecord) -> None:
        """Make the supervisor run what is written down, and nothing else."""
        self.installation.write(record)
        self.installation.write_configuration(render(record.programs))
        wanted = {program.name for program in record.programs}
        present = self._supervisor.processes()
        self._supervisor.add([name for name in wanted if name not in present])
        leaving = {name for name in present if name not in wanted}
        for name in self._wait_until_over(leaving, STOP_WAIT_S + 5):
            self._supervisor.forget(name)

    def _wait_until_over(self, names: set[str], timeout_s: float) -> set[str]:
        """Stop processes and wait for it; returns those that are over."""
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
        """End everything and leave no process and no run file behind; returns whether there was anything.

        Each service gets SIGTERM and finishes what it has in hand; `force` kills at once. Raises `StopFailed`.
        """
        from foretell.local import leftovers

        data_dir = self.installation.data_dir
        was_running = False
        if not force:
            try:
                # All at once, but for those that the others need until their end: supervisord's own shutdown ends one
                # after the other.
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
        if self._child is not None:
            self._child.wait(timeout=5)
            self._child = None
        alive = leftovers.processes_of(data_dir)
        if alive:
            raise StopFailed(pids=", ".join(str(process.pid) for process in alive))
        self.installation.remove_run_files()
        return was_running or bool(left)


_WRONG = ("error", "critical")
_SET_PER_PROCESS = ("FORETELL_PORT", "FORETELL_INSTANCE")
_ABSENT = ProcessState(name="", state="STOPPED", pid=0, started_at=0, uptime_s=0)


def _check_count(workers: int) -> None:
    if not 1 <= workers <= MAX_WORKERS:
        raise InvalidWorkerCount(most=MAX_WORKERS, count=workers)


def _program(name: str, service: str, host: str, port: int) -> Program:
    return Program(name=name, service=service, instance=f"{name}-{secrets.token_hex(3)}", host=host, port=port)
