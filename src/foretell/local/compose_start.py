"""Watches containers until they are healthy, or reports why one is not, as the local engine does."""

import subprocess
import time
from collections.abc import Callable, Iterator

from foretell.kit.errors import ForetellError
from foretell.local.compose import Compose
from foretell.local.containers import Container
from foretell.local.log_files import LogLine, parse_lines
from foretell.local.starting import StartFailed

#: A start without progress for so long has failed. Docker's own time-outs for a container are included.
_NO_PROGRESS_S = 180.0
#: A container that Docker has restarted so often before it was ever healthy is considered failed.
_HOPELESS_AFTER_RESTARTS = 3
_LOOK_EVERY_S = 0.5
_WRONG = ("error", "critical")

Clock = Callable[[], float]


class ComposeStart:
    """One start, or one scaling."""

    def __init__(self, compose: Compose, clock: Clock = time.monotonic) -> None:
        self._compose = compose
        self._clock = clock

    def until_healthy(self, docker: "subprocess.Popen[str]", service: str | None = None) -> Iterator[list[Container]]:
        """Yields the containers, all or those of a service, until `docker` has ended and each of them is healthy.

        Raises `StartFailed` for a container that ends, or that is not healthy without any more progress; otherwise
        an error with Docker's own message.
        """
        before, progress_at = None, self._clock()
        try:
            while True:
                under_way = docker.poll() is None
                containers = [each for each in self._compose.containers() if service in (None, each.service)]
                yield containers
                now = [(each.name, each.state, each.healthy) for each in containers]
                if now != before:
                    before, progress_at = now, self._clock()
                waiting = [each for each in containers if not each.healthy]
                hopeless = [each for each in waiting if _is_hopeless(each)]
                if hopeless and not (under_way and all(each.state == "starting" for each in hopeless)):
                    raise self._failed(hopeless)
                if not under_way:
                    if docker.returncode:
                        raise self._compose.failure("up", docker.stderr.read() if docker.stderr else "")
                    if not waiting:
                        return
                    if self._clock() - progress_at > _NO_PROGRESS_S:
                        raise self._failed(waiting)
                time.sleep(_LOOK_EVERY_S)
        finally:
            if docker.poll() is None:
                docker.terminate()
                docker.wait()
            if docker.stderr is not None:
                docker.stderr.close()

    def _failed(self, containers: list[Container]) -> ForetellError:
        reasons: dict[str, str] = {}
        last_words: list[LogLine] = []
        for each in containers:
            words = parse_lines(each.name, self._compose.last_words(each.id, lines=10))
            wrong = [str(line.fields.get("reason") or line.message) for line in words if line.level in _WRONG]
            said = wrong or [line.message for line in words if not line.level] or ["it ended without a word"]
            reasons[each.name] = each.reason if each.state == "running" and each.reason else said[-1]
            last_words += words
        return StartFailed(reasons, last_words)


def _is_hopeless(container: Container) -> bool:
    return container.restarts >= _HOPELESS_AFTER_RESTARTS or (container.state == "stopped" and container.exit_code != 0)
