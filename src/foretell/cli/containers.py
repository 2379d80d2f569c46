"""up, down, status, logs and scale for Docker Compose, with the same output as the local engine."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from foretell.cli.interrupting import signals_interrupt
from foretell.cli.log_lines import print_lines
from foretell.cli.output import (
    count,
    duration,
    exit_code,
    print_json,
    remark,
    remarks,
    say,
    show,
    table,
)
from foretell.cli.trying import TRY
from foretell.local.compose import WORKERS, Compose, workers_of
from foretell.local.compose_logs import ComposeLogs
from foretell.local.compose_plan import unread_settings
from foretell.local.compose_start import ComposeStart
from foretell.local.containers import Container
from foretell.local.log_format import readable
from foretell.local.planning import check_count
from foretell.local.starting import StartFailed

# up


def up(workers: int | None) -> None:
    """Start everything and return when it is healthy; if it runs already, apply the current settings."""
    if workers is not None:
        check_count(workers)
    compose = Compose()
    for name, meant in unread_settings(compose.folder).items():
        perhaps = f" Did you mean {meant}?" if meant else ""
        remark(f"{name} in .env changes nothing: docker-compose.yaml does not read it.{perhaps}")
    compose.check_ports()
    before = compose.containers()
    running = any(each.state == "running" for each in before)
    missing = compose.missing_images()
    if missing:
        remark(f"Building {count(len(missing), 'image')} that are not here yet; the first time this takes minutes …")
        compose.build()
    if running:
        say(f"Foretell is running already, with {count(workers_of(before), 'worker')}: {compose.plan.url(before)}")
    elif not compose.plan.has_bot:
        remark("The bot is not started: TELEGRAM_TOKEN is not set.")
    started = time.monotonic()
    with _undone_on_failure(compose, undo=not running):
        _watch(compose, compose.begin_up(workers))
    _introduce(compose, time.monotonic() - started, anew=not running)


@contextmanager
def _undone_on_failure(compose: Compose, *, undo: bool) -> Iterator[None]:
    """If a start fails or is interrupted by Ctrl-C, stop what did not run before."""
    try:
        with signals_interrupt():
            yield
    except BaseException as error:
        if isinstance(error, StartFailed):
            for line in error.last_words:
                remark(readable(line))
        elif isinstance(error, KeyboardInterrupt):
            remark("Broken off; stopping what was started …")
        if undo:
            compose.down()
        raise


def _watch(compose: Compose, docker: "subprocess.Popen[str]", service: str | None = None) -> None:
    """Show how the containers become healthy, all or those of a service."""
    start = ComposeStart(compose)
    if remarks.is_terminal:
        from rich.live import Live

        with Live(console=remarks, transient=True, refresh_per_second=4) as live:
            for containers in start.until_healthy(docker, service):
                live.update(_progress(containers))
        return
    # Do not report containers that are already healthy.
    said = {each.name for each in compose.containers() if each.healthy}
    started = time.monotonic()
    for containers in start.until_healthy(docker, service):
        for each in containers:
            if each.healthy and each.name not in said:
                said.add(each.name)
                remark(f"{_instance(each)} is healthy ({time.monotonic() - started:.1f} s)")


def _progress(containers: list[Container]) -> Table:
    lines = Table.grid(padding=(0, 2))
    for each in containers:
        done = each.healthy
        lines.add_row(
            Text("✓" if done else "…", "green" if done else "yellow"),
            _instance(each),
            "healthy" if done else each.state,
        )
    return lines


def _instance(container: Container) -> str:
    """`ml-worker-2`, without the project's name."""
    position = container.name.find(container.service)
    return container.name[position:] if position > 0 else container.name


def _introduce(compose: Compose, took_s: float, *, anew: bool) -> None:
    containers = compose.containers()
    url, workers = compose.plan.url(containers), count(workers_of(containers), "worker")
    if not anew:
        say(f"Foretell runs with {workers} now.")
        return
    say(f"Foretell is up, with {workers}, after {took_s:.1f} s.")
    say("")
    rows = [("App", url), ("API docs", f"{url}/docs")]
    if compose.plan.development:
        rows.append(("Test user", "test, password test"))
    rows += [
        ("Data", f"docker volume ls --filter label=com.docker.compose.project={compose.plan.project}"),
        ("Next", "foretell status | logs --follow | scale N | down   (or start.py --status …)"),
    ]
    for name, value in rows:
        say(f"  {name:<11} {value}")
    if compose.plan.development:
        say(TRY.format(url=url))


# down


def down() -> None:
    """Stop everything, and report it."""
    compose = Compose()
    if not compose.containers():
        say("Foretell is not running here; there is nothing to stop.")
        return
    with remarks.status("Stopping …"):
        compose.down()
    say("Foretell is down.")


# status


def status(*, as_json: bool) -> int:
    """Show each container, and return the exit status."""
    compose = Compose()
    containers = compose.containers()
    # A one-time container that has succeeded is healthy.
    code = exit_code([each.healthy or (each.state == "stopped" and each.exit_code == 0) for each in containers])
    if as_json:
        print_json([asdict(each) for each in containers])
        return code
    if not containers:
        say("Foretell is not running here. Start it: python start.py --engine docker --start")
        return code
    made = table(["service", "instance", "state", "health", "port", "container", "uptime"], right=["port", "uptime"])
    for each in containers:
        made.add_row(
            each.service,
            _instance(each),
            each.state,
            _health(each),
            ", ".join(map(str, each.published)),
            each.id,
            duration(each.uptime_s) if each.state == "running" else "",
        )
    if not any(each.service == "bot" for each in containers):
        made.add_row("bot", "", "off (no TELEGRAM_TOKEN)", "", "", "", "")
    show(made)
    return code


def _health(each: Container) -> Text:
    if each.healthy:
        return Text(f"healthy, but {each.reason}" if each.reason else "healthy", "yellow" if each.reason else "green")
    if each.state == "stopped":
        return Text(f"ended with {each.exit_code}", "red")
    return Text(f"unhealthy: {each.reason}" if each.reason else "", "red")


# logs


def logs(service: str | None, *, follow: bool, lines: int, as_json: bool) -> None:
    """Show the logs of all services, of one, or of one container."""
    reader = ComposeLogs(Compose(), service)
    print_lines(reader.last(lines), as_json=as_json)
    if follow:
        for line in reader.follow():
            print_lines([line], as_json=as_json)


# scale


def scale(workers: int) -> None:
    """Change the number of workers while everything runs."""
    check_count(workers)
    compose = Compose()
    before = workers_of(compose.containers())
    remark(f"Scaling to {count(workers, 'worker')}; those that leave finish what they have in hand …")
    if workers != before:
        _watch(compose, compose.begin_scale(workers), WORKERS)
    say(f"Foretell runs with {count(workers, 'worker')} now.")
