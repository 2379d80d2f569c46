"""up, down, status, logs, scale."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from foretell.cli import containers
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
from foretell.kit.disk import DiskFull, is_full
from foretell.local.engine import LocalEngine, NotRunning
from foretell.local.health import reachable_host
from foretell.local.installation import EngineRecord, Installation
from foretell.local.log_files import Logs
from foretell.local.log_format import readable
from foretell.local.starting import StartFailed
from foretell.local.status import ProcessStatus

_LOOK_EVERY_S = 0.2


def _engine() -> LocalEngine:
    return LocalEngine(Installation.from_environment())


def _waiting() -> None:
    remark("Another start, stop or scaling is under way here; waiting for it to end …")


# up


def up_detached(workers: int | None) -> None:
    """Start everything in the background and return when it is healthy; scale if it runs already."""
    engine = _engine()
    with engine.installation.lock(_waiting):
        record = engine.record()
        if record is not None:
            _already_running(engine, record, workers)
            return
        started = time.monotonic()
        with _undone_on_failure(engine):
            _launch(engine, workers)
            _watch(engine)
        _introduce(engine, time.monotonic() - started)


def _launch(engine: LocalEngine, workers: int | None) -> None:
    # Imported here, because its imports would make `foretell status` slow.
    from foretell.cli.serving import check_settings

    check_settings()
    ended = engine.clear_leftovers()
    if ended:
        remark(f"Ended {ended} processes that an earlier run had left behind when its supervisor was killed.")
    for text in engine.launch(workers):
        remark(text)


@contextmanager
def _undone_on_failure(engine: LocalEngine) -> Iterator[None]:
    """If a start fails or is interrupted by Ctrl-C, stop everything."""
    try:
        with signals_interrupt():
            yield
    except StartFailed as failure:
        _stop(engine, force=False)
        for line in failure.last_words:
            remark(readable(line))
        remark(f"All logs: {engine.installation.logs_dir}")
        raise
    except KeyboardInterrupt:
        remark("Broken off; stopping what was started …")
        _stop(engine, force=False)
        raise
    except BaseException:
        _stop(engine, force=True)
        raise


def _watch(engine: LocalEngine, names: list[str] | None = None) -> None:
    """Show how the processes become healthy, and what they load."""
    if remarks.is_terminal:
        from rich.live import Live

        with Live(console=remarks, transient=True, refresh_per_second=8) as live:
            for statuses in engine.until_healthy(names):
                live.update(_progress(statuses))
    else:
        said: set[str] = set()
        started = time.monotonic()
        for statuses in engine.until_healthy(names):
            for line in _lines(statuses):
                if line not in said:
                    said.add(line)
                    remark(f"{line} ({time.monotonic() - started:.1f} s)")
    _remark_on_loading(engine)


def _lines(statuses: list[ProcessStatus]) -> Iterator[str]:
    """The progress of a start as lines, of which only new ones are shown."""
    for status in statuses:
        if status.healthy and not status.loading:
            yield f"{status.name} is healthy"
        # No line for models that are queued.
        yield from (f"{status.name} loads {model}" for model, seconds in status.loading.items() if seconds)


def _remark_on_loading(engine: LocalEngine) -> None:
    """Print which models are still loading after the start."""
    models = sorted({model for status in engine.status() for model in status.loading})
    if models:
        remark(f"Still being loaded: {', '.join(models)}. What is asked of them waits; see foretell status.")
    for name, reason in engine.not_working().items():
        remark(f"The {name} does not work yet: {reason.rstrip('.')}. Everything else does; see foretell status.")


def _progress(statuses: list[ProcessStatus]) -> Table:
    lines = Table.grid(padding=(0, 2))
    for status in statuses:
        done = status.healthy and not status.loading
        word = "healthy" if done else _loading(status) or status.state
        lines.add_row(Text("✓" if done else "…", "green" if done else "yellow"), status.name, word)
    return lines


def _loading(status: ProcessStatus) -> str:
    """The models that a process is loading, and the number of queued ones."""
    begun = [f"{model} ({duration(int(seconds))})" for model, seconds in status.loading.items() if seconds]
    waiting = len(status.loading) - len(begun)
    if not status.loading:
        return ""
    return f"loads {', '.join(begun) or 'models'}" + (f", and {waiting} more" if waiting and begun else "")


def _already_running(engine: LocalEngine, record: EngineRecord, workers: int | None) -> None:
    present = len(engine.workers(record))
    say(f"Foretell is running already, with {count(present, 'worker')}: {_app_url(record)}")
    if differing := record.differing(os.environ):
        say(f"It does not run with these settings yet: {', '.join(differing)}. Stop it, then start it with them.")
    if workers is not None and workers != present:
        _scale(engine, workers)


def _app_url(record: EngineRecord) -> str:
    app = next((program for program in record.programs if program.service == "app"), None)
    return f"http://{_in_url(reachable_host(app.host))}:{app.port}" if app else "no app in this release"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _introduce(engine: LocalEngine, took_s: float) -> None:
    record = engine.running_record()
    url = _app_url(record)
    say(f"Foretell is up, with {count(len(engine.workers(record)), 'worker')}, after {took_s:.1f} s.")
    say("")
    rows = [("App", url), ("API docs", f"{url}/docs")]
    if record.environment == "development":
        rows.append(("Test user", "test, password test"))
    rows += [
        ("Data, logs", str(engine.installation.data_dir)),
        ("Next", "foretell status | logs --follow | scale N | down   (or start.py --status …)"),
    ]
    for name, value in rows:
        say(f"  {name:<11} {value}")
    if record.environment == "development":
        say(TRY.format(url=url))


def up_foreground(workers: int | None) -> None:
    """Start everything, show its logs, and stop everything on Ctrl-C."""
    engine = _engine()
    installation = engine.installation
    with installation.lock(_waiting):
        record = engine.record()
        if record is not None:
            _already_running(engine, record, workers)
            return
        logs = Logs(installation.logs_dir)
        logs.follow_from_now()
        with _undone_on_failure(engine):
            started = time.monotonic()
            _launch(engine, workers)
            for _ in engine.until_healthy():
                print_lines(logs.new())
            _remark_on_loading(engine)
            _introduce(engine, time.monotonic() - started)
            say("Ctrl-C stops everything.")
    # The lock is released, so that `foretell scale` works meanwhile.
    try:
        with signals_interrupt():
            while engine.record() is not None:
                print_lines(logs.new())
                time.sleep(_LOOK_EVERY_S)
        remark("The supervisor has ended: somebody stopped it elsewhere, or killed it.")
    except (KeyboardInterrupt, OSError):
        # An OSError: the reader of the output has gone.
        remark("\nStopping …")
    with installation.lock(_waiting):
        _stop(engine, force=False)
    with suppress(OSError):
        print_lines(logs.new())
    logs.close()
    remark("Foretell is down.")


# down


def down(engine_name: str | None) -> None:
    """Stop the running engine."""
    if _choose(engine_name) == "docker":
        containers.down()
        return
    engine = _engine()
    if not engine.installation.data_dir.exists():
        say("Foretell is not running here; there is nothing to stop.")
        return
    with engine.installation.lock(_waiting), remarks.status("Stopping …"):
        stopped = _stop(engine, force=False)
    say("Foretell is down." if stopped else "Foretell is not running here; there is nothing to stop.")


def _stop(engine: LocalEngine, *, force: bool) -> bool:
    try:
        return engine.stop(force=force)
    except KeyboardInterrupt:
        remark("Killing what is left …")
        return engine.stop(force=True)


def _choose(engine_name: str | None) -> str:
    """The given engine, or the running one, or local."""
    if engine_name is not None:
        return engine_name
    if _engine().record() is not None:
        return "local"
    from foretell.local.compose import Compose

    return "docker" if Compose().running() else "local"


# status


def status(engine_name: str | None, *, as_json: bool) -> int:
    """Show the running processes, and return the exit status."""
    if _choose(engine_name) == "docker":
        return containers.status(as_json=as_json)
    engine = _engine()
    if is_full(engine.installation.data_dir):
        remark(DiskFull(folder=engine.installation.data_dir).message)
    try:
        statuses = engine.status()
    except NotRunning as error:
        if as_json:
            print_json([])
        else:
            say(error.message)
        return exit_code([])
    code = exit_code([each.healthy for each in statuses])
    if as_json:
        print_json([asdict(each) for each in statuses])
        return code
    made = table(["service", "instance", "state", "health", "port", "pid", "uptime"], right=["port", "pid", "uptime"])
    for each in statuses:
        made.add_row(
            each.service,
            each.instance,
            each.state,
            _health(each),
            str(each.port or ""),
            str(each.pid or ""),
            duration(each.uptime_s) if each.pid else "",
        )
    for service, why in engine.left_out(engine.running_record()).items():
        made.add_row(service, "", why, "", "", "", "")
    show(made)
    return code


def _health(each: ProcessStatus) -> Text:
    if each.healthy:
        return Text(f"healthy, {_loading(each)}" if each.loading else "healthy", "green")
    return Text(f"unhealthy: {each.reason}" if each.reason else "", "red")


# logs


def logs(service: str | None, *, follow: bool, lines: int, as_json: bool, engine: str | None) -> None:
    """Show the logs of all services or of one."""
    if _choose(engine) == "docker":
        containers.logs(service, follow=follow, lines=lines, as_json=as_json)
        return
    installation = _engine().installation
    if not installation.logs_dir.is_dir():
        raise NotRunning(folder=installation.data_dir)
    reader = Logs(installation.logs_dir, [] if service is None else [_own_name(service)])
    try:
        if follow:
            reader.follow_from_now()
        print_lines(reader.last(lines), as_json=as_json)
        while follow:
            print_lines(reader.new(), as_json=as_json)
            time.sleep(_LOOK_EVERY_S)
    finally:
        reader.close()


def _own_name(service: str) -> str:
    from foretell.local.services import SERVICES

    wanted = service.lower().replace("_", "-")
    return next((each.name for each in SERVICES if wanted in (each.name, each.compose_name)), service)


# scale


def scale(workers: int, engine_name: str | None) -> None:
    """Change the number of workers."""
    if _choose(engine_name) == "docker":
        containers.scale(workers)
        return
    engine = _engine()
    engine.running_record()
    with engine.installation.lock(_waiting):
        _scale(engine, workers)


def _scale(engine: LocalEngine, workers: int) -> None:
    with remarks.status(f"Scaling to {count(workers, 'worker')}; those that leave finish what they have in hand …"):
        added = engine.scale(workers)
    if added:
        _watch(engine, added)
    say(f"Foretell runs with {count(workers, 'worker')} now.")
