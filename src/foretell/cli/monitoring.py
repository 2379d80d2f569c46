"""monitor and redrive: a client of the monitoring service of this installation, or of another one."""

import os
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from foretell.cli import monitoring_tables as tables
from foretell.cli.output import console, count, print_json, remark, say
from foretell.kit.errors import ForetellError
from foretell.local.health import reachable_host
from foretell.local.installation import Installation
from foretell.local.log_files import LogLine
from foretell.local.log_format import readable
from foretell.local.log_format import safe as printable
from foretell.local.services import usual_url

_TIMEOUT_S = 30.0
#: Moving many messages takes long.
_MOVING_TIMEOUT_S = 1800.0
_LOOK_EVERY_S = 1.0
#: Lines of different services arrive out of order, so `--follow` reads this far back.
_LATE = timedelta(seconds=15)
_MOST_NEW = 5000
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PATHS = {"alerts": "/alerts"}


class MonitoringAway(ForetellError):
    """The monitoring service does not answer at {url}. Start Foretell (foretell up), or say where with --url."""

    code = "monitoring_away"


class NoMonitoring(ForetellError):
    """Foretell runs here without a monitoring service. Say with --url where another one answers."""

    code = "no_monitoring"


class TokenWrong(ForetellError):
    """The monitoring service at {url} wants its token: set FORETELL_MONITORING_TOKEN to the one that it has."""

    code = "token_wrong"


class Refused(ForetellError):
    """The monitoring service says: {reason}"""

    code = "refused"


class NoSuchTime(ForetellError):
    """{text} is no time: write a length like 90s, 10m, 2h, 7d, or a moment like 2026-01-05T09:30:00Z."""

    code = "no_such_time"


class NoSuchLevel(ForetellError):
    """There is no level {level}. There are DEBUG, INFO, WARNING and ERROR."""

    code = "no_such_level"


class Monitoring:
    """One monitoring service."""

    def __init__(self, url: str | None) -> None:
        """`url` is its URL; None: the local one. Raises `NoMonitoring`."""
        self.url = (url or _running_url()).rstrip("/")
        token = os.environ.get("FORETELL_MONITORING_TOKEN", "")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=_TIMEOUT_S, trust_env=False)
        except httpx.InvalidURL:
            raise MonitoringAway(url=self.url) from None

    def __enter__(self) -> "Monitoring":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """The answer to GET. Raises `MonitoringAway`, `TokenWrong`, `Refused`."""
        return self._send("GET", path, params=parameters)

    def tell(self, path: str, body: Any) -> Any:
        """The answer to POST. Raises the same errors."""
        return self._send("POST", path, json=body, timeout=_MOVING_TIMEOUT_S)

    def remove(self, path: str, parameters: Mapping[str, Any]) -> Any:
        """The answer to DELETE. Raises the same errors."""
        return self._send("DELETE", path, params=parameters, timeout=_MOVING_TIMEOUT_S)

    def _send(self, method: str, path: str, **rest: Any) -> Any:
        try:
            answer = self._http.request(method, path, **rest)
        except (httpx.TransportError, httpx.UnsupportedProtocol, UnicodeError):
            raise MonitoringAway(url=self.url) from None
        if answer.status_code == 401:
            raise TokenWrong(url=self.url)
        try:
            content = answer.json()
        except ValueError:
            raise MonitoringAway(url=self.url) from None
        if answer.status_code >= 400:
            raise Refused(reason=printable(_reason(content)))
        return content


def _reason(problem: Any) -> str:
    if not isinstance(problem, dict):
        return "no"
    errors = problem.get("errors") or []
    fields = [f"{error.get('parameter') or error.get('pointer', '')} {error.get('detail', '')}" for error in errors]
    return "; ".join(fields) or str(problem.get("detail", problem.get("status", "no")))


def _running_url() -> str:
    """The URL of the running engine's monitoring service, or of the documented port."""
    record = Installation.from_environment().read()
    if record is None:
        return os.environ.get("FORETELL_MONITORING_URL") or usual_url("monitoring")
    program = next((each for each in record.programs if each.service == "monitoring"), None)
    if program is None:
        raise NoMonitoring
    host = reachable_host(program.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{program.port}"


def report(name: str, parameters: Mapping[str, Any], *, as_json: bool, url: str | None) -> None:
    """Show one report."""
    with Monitoring(url) as monitoring:
        content = monitoring.ask(_PATHS.get(name, f"/reports/{name}"), parameters)
    if as_json:
        print_json(content)
    else:
        tables.SHOW[name](content)


def redrive(queue: str, *, limit: int, discard: bool, yes: bool, as_json: bool, url: str | None) -> None:
    """Show the dead letters of a queue, and with `yes` send them back to it, or discard all of them."""
    path = f"/queues/{quote(queue, safe='')}"
    with Monitoring(url) as monitoring:
        if yes and not discard:
            moved = monitoring.tell(f"{path}/redrive", {"limit": limit})
            _write_down("queue.redrive.done", queue, moved)
            _tell_moved(moved, f"sent back to {queue}", as_json=as_json)
            return
        dead = monitoring.ask(f"{path}/dead", {"limit": min(limit, 50)})
        if yes:
            # Confirm the number that was shown. If more have arrived meanwhile, the service refuses.
            moved = monitoring.remove(f"{path}/dead", {"confirm": dead["count"]})
            _write_down("queue.discard.done", queue, moved)
            _tell_moved(moved, f"of {queue} discarded", as_json=as_json)
            return
    if as_json:
        print_json(dead)
        return
    tables.dead_letters(dead)
    if dead["count"] and discard:
        remark(f"Nothing was changed. To discard all {count(dead['count'], 'message')} for good, add --yes.")
    elif dead["count"]:
        number = min(limit, dead["count"])
        remark(f"Nothing was changed. To send {count(number, 'message')} back to {queue}, add --yes.")


def _tell_moved(moved: Mapping[str, Any], where: str, *, as_json: bool) -> None:
    if as_json:
        print_json(moved)
    else:
        say(f"{count(moved['moved'], 'message')} {where}; {moved['left']} left.")


def _write_down(act: str, queue: str, moved: dict[str, Any]) -> None:
    """Write to the journal of the installation, if its database is reachable."""
    from foretell.cli import operating

    try:
        operating.write_down(act, f"queue:{queue}", moved)
    except ForetellError as error:
        remark(f"It does not stand in the journal, which is not within reach of here: {error.message}")


def logs(
    wanted: Mapping[str, str],
    *,
    level: str | None,
    since: str | None,
    lines: int,
    follow: bool,
    as_json: bool,
    url: str | None,
) -> None:
    """Show log lines, and with `follow` also new ones."""
    parameters: dict[str, Any] = {**wanted, "limit": lines}
    if level is not None:
        if level.upper() not in _LEVELS:
            raise NoSuchLevel(level=level)
        parameters["min_level"] = level.upper()
    if since is not None:
        parameters["since"] = moment_of(since, datetime.now(UTC)).isoformat()
    with Monitoring(url) as monitoring:
        began = datetime.now(UTC)
        records = monitoring.ask("/reports/logs", parameters)
        _print(records, as_json=as_json)
        shown: set[bytes] = set()
        if follow:
            # Existing lines were shown already, or are too old.
            recent = {"since": (began - _LATE).isoformat(), "limit": _MOST_NEW}
            shown = {_key(record) for record in monitoring.ask("/reports/logs", {**parameters, **recent})}
        while follow:
            time.sleep(_LOOK_EVERY_S)
            newest = {"since": (began - _LATE).isoformat(), "limit": _MOST_NEW}
            began = datetime.now(UTC)
            records = monitoring.ask("/reports/logs", {**parameters, **newest})
            _print([record for record in records if _key(record) not in shown], as_json=as_json)
            # Only lines after that time are requested again, so older ones need not be remembered.
            shown = {_key(record) for record in records} | (shown if not records else set())


def moment_of(text: str, now: datetime) -> datetime:
    """`10m` ago, or a moment in ISO 8601 (without a zone: here). Raises `NoSuchTime`."""
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]+)?)([smhd])", text, re.ASCII)
    try:
        if match:
            return now - timedelta(**{_UNITS[match[2]]: float(match[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise NoSuchTime(text=repr(text)) from None


def _key(record: Any) -> bytes:
    return msgspec.json.encode(record)


def _print(records: list[dict[str, Any]], *, as_json: bool) -> None:
    for record in records:
        if as_json:
            text = msgspec.json.encode(record).decode()
        else:
            text = readable(_line(record), width=14, colour=console.is_terminal)
        sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _line(record: Mapping[str, Any]) -> LogLine:
    fields = {name: record[name] for name in ("prediction_id", "request_id", "trace_id") if record.get(name)}
    source = str(record.get("instance") or record["service"])
    return LogLine(
        # A name from a client must not forge a line either.
        printable(source),
        datetime.fromisoformat(record["timestamp"]),
        str(record["level"]).lower(),
        str(record["message"]),
        {printable(str(name)): value for name, value in {**fields, **record.get("fields", {})}.items()},
    )
