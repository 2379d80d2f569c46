"""The supervisor process of the local engine: supervisord, with pauses that fit services under load.

Run as `python -m foretell.local.supervision -n -c FILE`. By default supervisord pauses 1, 2, 3 … seconds between
restarts, whatever ended the process and without a limit, finally gives up, and checks its children once
a second. Here a process that was killed is restarted at once, one that ends again and again gets growing
pauses up to 15 s, and none is ever given up. A process that no longer answers is ended and replaced (`silence.py`).
The supervisor keeps running when the disk is full (`supervisor_logs.py`).
"""

import json
import os
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from supervisor.dispatchers import POutputDispatcher
from supervisor.events import ProcessCommunicationStdoutEvent
from supervisor.loggers import LevelsByName, getLogger
from supervisor.options import ProcessConfig, ServerOptions
from supervisor.poller import Poller
from supervisor.process import Subprocess
from supervisor.states import ProcessStates
from supervisor.supervisord import go

from foretell.kit.in_hand import read as read_in_hand
from foretell.kit.standstill_codes import EXIT_STOOD_STILL, STACKS_SIGNAL
from foretell.local.silence import Listener, Target
from foretell.local.supervisor_logs import LogFile

_LOOK_EVERY_S = 0.1
_LONGEST_PAUSE_S = 15.0
_LONGEST_PAUSE_AFTER_SIGNAL_S = 1.0
_STOPPING_SIGNALS = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP))
#: Exit statuses of processes that ask to be replaced at once (EX_SOFTWARE: a worker whose model hangs).
_REPLACE_AT_ONCE = (70, EXIT_STOOD_STILL)
#: A process without an answer for so long is ended, unless FORETELL_STANDSTILL_LIMIT_S is set. The supervisor waits
#: longer by the second value, because a process that detects the blocked loop itself can log more about it.
_STANDSTILL_LIMIT_S = 60.0
_LATER_S = 10.0
#: How long a process may take to write its stacks before it is killed.
_STACKS_WITHIN_S = 1.0


def pause_s(short_lives: int, wait_status: int) -> float:
    """The pause before the next start, after the process has ended `short_lives` times in a row soon after a start.

    `wait_status` is the status from `waitpid` of the last one.
    """
    if os.WIFSIGNALED(wait_status):
        longest = _LONGEST_PAUSE_AFTER_SIGNAL_S
    elif os.WEXITSTATUS(wait_status) in _REPLACE_AT_ONCE:
        longest = 0.0
    else:
        longest = _LONGEST_PAUSE_S
    # The first restart has no pause; the exponent is bounded, so that a long crash loop does not overflow.
    return min(longest, 0.25 * 2 ** min(short_lives - 1, 10)) if short_lives > 1 else 0.0


class _Process(Subprocess):  # type: ignore[misc]
    # If a child is stopped between its fork and its exec, the handlers that it inherited from us swallow the signal,
    # and it runs until it is killed for being late. So these signals are blocked during the fork, and are delivered
    # when the child has reset the handlers. Both parent and child create the child's process group, because the
    # signal is sent to the group and either may run first.

    def spawn(self) -> Any:
        """Start the process."""
        in_hand = self._in_hand_file
        with suppress(OSError):
            in_hand.unlink(missing_ok=True)
        self.config.environment["FORETELL_IN_HAND_PATH"] = str(in_hand)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING_SIGNALS)
        try:
            return super().spawn()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _spawn_as_parent(self, pid: int) -> Any:
        with suppress(OSError):
            os.setpgid(pid, pid)
        return super()._spawn_as_parent(pid)

    def _spawn_as_child(self, filename: str, argv: list[str]) -> Any:
        for number in _STOPPING_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING_SIGNALS)
        return super()._spawn_as_child(filename, argv)

    #: How often it crashed since it was last started or stopped by a command.
    crashes = 0
    #: When to kill a silent process (monotonic clock), and its process id.
    _doomed: tuple[float, int] | None = None

    @property
    def target(self) -> Target | None:
        """Where to check whether it answers; None if it is not checked."""
        told = self.config.environment
        if not self.pid or self.killing or self._doomed is not None or "FORETELL_PORT" not in told:
            return None
        return Target(self.config.name, self.pid, told["FORETELL_HOST"], int(told["FORETELL_PORT"]))

    def end_silent(self, pid: int, silent_s: float) -> None:
        """Make the silent process write its stacks, and schedule its end."""
        if pid != self.pid or self.killing:
            return
        self._say("process_stands_still", pid=pid, for_s=round(silent_s, 1))
        with suppress(OSError):
            os.kill(pid, STACKS_SIGNAL)
        self._doomed = time.monotonic() + _STACKS_WITHIN_S, pid

    def kill_doomed(self) -> None:
        """Kill it at the scheduled time. An ended process is not waited for yet, so its id is not reused."""
        if self._doomed is None or time.monotonic() < self._doomed[0]:
            return
        _, pid = self._doomed
        if pid == self.pid:
            with suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        else:
            self._doomed = None

    def _say(self, message: str, **fields: Any) -> None:
        """Write a line to its log in the service's format, and one to ours."""
        told = self.config.environment
        line = {
            "@timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "log.level": "error",
            "message": message,
            **fields,
            "service.name": "supervisor",
            "service.node.name": told.get("FORETELL_INSTANCE", self.config.name),
        }
        self.config.output_log().info(json.dumps(line).encode() + b"\n")
        self.config.options.logger.critical(f"{self.config.name}: {message} {fields}")

    @property
    def _in_hand_file(self) -> Path:
        return Path(os.environ["FORETELL_ENGINE_DIR"], "run", f"{self.config.name}.in-hand")

    def _note_end(self, wait_status: int) -> None:
        """Pass to the next process how this one ended, unless it was stopped."""
        told = self.config.environment
        if self.killing or wait_status == 0:
            self.crashes = 0
            told.pop("FORETELL_LAST_END", None)
            told.pop("FORETELL_LAST_IN_HAND", None)
            return
        self.crashes += 1
        signaled = os.WIFSIGNALED(wait_status)
        end = signal.Signals(os.WTERMSIG(wait_status)).name if signaled else f"status {os.WEXITSTATUS(wait_status)}"
        in_hand = read_in_hand(self._in_hand_file)
        told |= {"FORETELL_LAST_END": end, "FORETELL_LAST_IN_HAND": in_hand}
        self._say("process_ended", pid=self.pid, ended_by=end, in_hand=in_hand or "nothing", crashes=self.crashes)

    def finish(self, pid: int, wait_status: int) -> None:
        """Called when the process has ended."""
        self._note_end(wait_status)
        stood_still = os.WIFEXITED(wait_status) and os.WEXITSTATUS(wait_status) == EXIT_STOOD_STILL
        if stood_still or self._doomed is not None:
            # The next process reports it in its metrics.
            told = self.config.environment
            told["FORETELL_STANDSTILLS"] = str(int(told.get("FORETELL_STANDSTILLS", "0")) + 1)
        self._doomed = None
        super().finish(pid, wait_status)
        if self.state == ProcessStates.BACKOFF:
            self.delay = time.time() + pause_s(self.backoff, wait_status)


def _logger_to(file: str, *, level: int, line: str, max_bytes: int, backups: int) -> Any:
    logger = getLogger(level)
    handler = LogFile(Path(file), max_bytes=max_bytes, backups=backups)
    handler.setLevel(level)
    handler.setFormat(line)
    logger.addHandler(handler)
    return logger


class _Output(POutputDispatcher):  # type: ignore[misc]
    def _init_normallog(self) -> None:
        self.normallog = self.process.config.output_log()


class _ProcessConfig(ProcessConfig):  # type: ignore[misc]
    _output_log: Any = None

    def output_log(self) -> Any:
        """The log of this program, kept across restarts, because it counts lost lines."""
        if self._output_log is None:
            self._output_log = _logger_to(
                self.stdout_logfile,
                level=self.options.loglevel,
                line="%(message)s",
                max_bytes=self.stdout_logfile_maxbytes,
                backups=self.stdout_logfile_backups,
            )
        return self._output_log

    def make_dispatchers(self, process: Any) -> Any:
        """The pipes to a process, and their readers; standard error is merged with standard output."""
        pipes = self.options.make_pipes(False)
        output = pipes["stdout"]
        return {output: _Output(process, ProcessCommunicationStdoutEvent, output)}, pipes

    def make_process(self, group: Any = None) -> _Process:
        process = _Process(self)
        process.group = group
        self.options.made[id(process)] = process
        return process


class _Poller(Poller):  # type: ignore[misc]
    def poll(self, timeout: float) -> Any:
        found = super().poll(min(timeout, _LOOK_EVERY_S))
        self.options.look_after_silent()
        return found


class _Options(ServerOptions):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.poller = _Poller(self)
        #: All existing processes.
        self.made: WeakValueDictionary[int, _Process] = WeakValueDictionary()
        self._listener: Listener | None = None

    def listen(self, limit_s: float) -> None:
        """From now on, end processes that do not answer for `limit_s`."""
        self._listener = Listener(limit_s)
        self._listener.start()

    def look_after_silent(self) -> None:
        """Called regularly by the thread that waits for processes."""
        if self._listener is None:
            return
        processes = list(self.made.values())
        self._listener.listen_to(target for process in processes if (target := process.target) is not None)
        for silent in self._listener.silent():
            for process in processes:
                if process.config.name == silent.name:
                    process.end_silent(silent.pid, self._listener.limit_s)
        for process in processes:
            process.kill_doomed()

    def make_logger(self) -> None:
        # `parse_criticals` is left out: it only warns about running as root, which is intended in a container.
        self.logger = _logger_to(
            self.logfile,
            level=self.loglevel,
            line="%(asctime)s %(levelname)s %(message)s\n",
            max_bytes=self.logfile_maxbytes,
            backups=self.logfile_backups,
        )
        for text in self.parse_warnings:
            self.logger.warn(text)

    def openhttpservers(self, supervisord: Any) -> None:
        """Open the socket, without the warning about a missing password: only its owner can access it."""
        level, self.logger.level = self.logger.level, LevelsByName.CRIT + 1
        try:
            super().openhttpservers(supervisord)
        finally:
            self.logger.level = level

    def processes_from_section(self, parser: Any, section: str, group_name: str, klass: Any = None) -> Any:
        return super().processes_from_section(
            parser, section, group_name, _ProcessConfig if klass in (None, ProcessConfig) else klass
        )


def _limit_s() -> float:
    """The limit from the setting; an invalid one is reported by the services, which refuse to start."""
    with suppress(ValueError):
        return max(0.0, float(os.environ.get("FORETELL_STANDSTILL_LIMIT_S") or _STANDSTILL_LIMIT_S))
    return _STANDSTILL_LIMIT_S


def main() -> None:
    """Run until told to shut down."""
    options = _Options()
    options.realize(doc=__doc__)
    options.first = True
    options.test = False
    if limit_s := _limit_s():
        options.listen(limit_s + min(limit_s, _LATER_S))
    go(options)
    options.close_httpservers()
    options.close_logger()


if __name__ == "__main__":
    main()
