"""The supervisor process of the local engine: supervisord, with pauses that fit services under load.

Run as `python -m foretell.local.supervision -n -c FILE`. As it comes, supervisord pauses 1, 2, 3 … seconds between
restarts whatever ended the process, without a bound, gives up for good in the end, and looks after its children once
a second. Here a process that somebody killed is back at once, one that ends itself again and again gets growing
pauses up to 15 s, and none is ever given up. And it lives on when the disk is full (`supervisor_logs.py`).
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor.dispatchers import POutputDispatcher
from supervisor.events import ProcessCommunicationStdoutEvent
from supervisor.loggers import LevelsByName, getLogger
from supervisor.options import ProcessConfig, ServerOptions
from supervisor.poller import Poller
from supervisor.process import Subprocess
from supervisor.states import ProcessStates
from supervisor.supervisord import go

from foretell.local.supervisor_logs import LogFile

_LOOK_EVERY_S = 0.1
_LONGEST_PAUSE_S = 15.0
_LONGEST_PAUSE_AFTER_SIGNAL_S = 1.0
_STOPPING_SIGNALS = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP))
#: Exit status of a process that asks to be replaced at once (EX_SOFTWARE: a worker whose model hangs).
_REPLACE_AT_ONCE = 70


def pause_s(short_lives: int, wait_status: int) -> float:
    """How long to wait before the next start, after `short_lives` ends in a row soon after a start.

    `wait_status` is what `waitpid` said of the last one.
    """
    if os.WIFSIGNALED(wait_status):
        longest = _LONGEST_PAUSE_AFTER_SIGNAL_S
    elif os.WEXITSTATUS(wait_status) == _REPLACE_AT_ONCE:
        longest = 0.0
    else:
        longest = _LONGEST_PAUSE_S
    # The first is free; doubling is bounded so that a long crash loop does not overflow.
    return min(longest, 0.25 * 2 ** min(short_lives - 1, 10)) if short_lives > 1 else 0.0


class _Process(Subprocess):  # type: ignore[misc]
    # A child that is told to stop between its fork and its exec loses that signal to the handlers that it inherited
    # from us, and then runs on until it is killed for being late. So it is born with these signals held back, and
    # they reach it once it has put the handlers off. And both sides make its process group, whoever is first: the
    # signal goes to the group.

    def spawn(self) -> Any:
        """Start the process."""
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

    def finish(self, pid: int, wait_status: int) -> None:
        """Called when the process has ended."""
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
        """The log of this process, one after the other: it remembers what was lost."""
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
        """The pipes to a process, and what reads them; standard error comes with standard output."""
        pipes = self.options.make_pipes(False)
        output = pipes["stdout"]
        return {output: _Output(process, ProcessCommunicationStdoutEvent, output)}, pipes

    def make_process(self, group: Any = None) -> _Process:
        process = _Process(self)
        process.group = group
        return process


class _Poller(Poller):  # type: ignore[misc]
    def poll(self, timeout: float) -> Any:
        return super().poll(min(timeout, _LOOK_EVERY_S))


class _Options(ServerOptions):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.poller = _Poller(self)

    def make_logger(self) -> None:
        # `parse_criticals` is left out: a warning to those who run it as root, who (in a container, say) chose so.
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
        """Open the socket, without the warning that it wants no password: only its owner may come near it."""
        level, self.logger.level = self.logger.level, LevelsByName.CRIT + 1
        try:
            super().openhttpservers(supervisord)
        finally:
            self.logger.level = level

    def processes_from_section(self, parser: Any, section: str, group_name: str, klass: Any = None) -> Any:
        return super().processes_from_section(
            parser, section, group_name, _ProcessConfig if klass in (None, ProcessConfig) else klass
        )


def main() -> None:
    """Run until told to shut down."""
    options = _Options()
    options.realize(doc=__doc__)
    options.first = True
    options.test = False
    go(options)
    options.close_httpservers()
    options.close_logger()


if __name__ == "__main__":
    main()
