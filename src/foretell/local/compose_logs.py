"""The logs of containers, in the same form as those of the local engine."""

import re
import subprocess
from collections.abc import Iterator

from foretell.local.compose import Compose, NoSuchService, compose_name
from foretell.local.log_files import LogLine, Parser

_ONE = re.compile(r"(.+)-([0-9]+)")


class ComposeLogs:
    """The logs of all services, of one, or of one container (`ml-worker-2`)."""

    def __init__(self, compose: Compose, name: str | None) -> None:
        """Raises `NoSuchService`."""
        self._compose = compose
        self._chosen = [] if name is None else self._choose(name)
        self._parsers: dict[str, Parser] = {}

    def _choose(self, name: str) -> list[str]:
        known = self._compose.services()
        whole = compose_name(name)
        if whole in known:
            return [whole]
        match = _ONE.fullmatch(name)
        service = compose_name(match[1]) if match else ""
        if match and service in known:
            return ["--index", match[2], service]
        raise NoSuchService(name=name, known=", ".join(known))

    def last(self, lines: int) -> list[LogLine]:
        """The last lines of all of them together, in the order of time. Raises `DockerFailed` and similar errors."""
        text = self._compose.ask("logs", "--no-color", "--tail", str(lines), *self._chosen)
        found = [self._parse(line) for line in text.splitlines() if line]
        found.sort(key=lambda line: line.moment)
        return found[-lines:] if lines > 0 else []

    def follow(self) -> Iterator[LogLine]:
        """Lines that are written from now on, until Docker ends or the iterator is closed."""
        command = self._compose.command("logs", "--no-color", "--follow", "--tail", "0", *self._chosen)
        process = subprocess.Popen(  # noqa: S603 - our own arguments
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            bufsize=1,
            cwd=self._compose.folder,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                yield self._parse(line.rstrip("\n"))
        finally:
            process.terminate()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _parse(self, line: str) -> LogLine:
        # "ml-worker-1  | {…}", after a control sequence that clears the line, even without a terminal.
        line = line.replace("\x1b[2K", "")
        source, separator, raw = line.partition(" | ")
        if not separator:
            source, raw = "docker", line
        source = source.strip()
        return self._parsers.setdefault(source, Parser(source)).parse(raw)
