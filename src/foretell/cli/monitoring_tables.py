"""Reports of the monitoring service as tables, for terminals of 80 columns and more."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from foretell.cli.output import count, duration, say, show, table
from foretell.local.log_format import safe as printable

_COLOURS = {
    "healthy": "green",
    "stopped": "dim",
    "degraded": "yellow",
    "unhealthy": "red",
    "down": "red",
    "missing": "red",
    "crashed": "red",
    "firing": "red",
    "pending": "yellow",
}
_NONE = "-"


def _plain(value: Any) -> Text:
    """Text from a service, without markup and control characters."""
    return Text(printable(str(value)))


def _state(value: Any) -> Text:
    text = printable(str(value))
    return Text(text, _COLOURS.get(text, ""))


def _rows(columns: Iterable[str], rows: Iterable[Iterable[Any]], *, right: Iterable[str] = ()) -> None:
    made = table(columns, right=right)
    for row in rows:
        made.add_row(*(each if isinstance(each, Text) else _plain(each) for each in row))
    if made.row_count:
        show(made)


def milliseconds(seconds: float | None) -> str:
    """`0.42 ms`, `12 ms`, `1.3 s`, `2:05`."""
    if seconds is None:
        return _NONE
    if seconds >= 60:
        return duration(seconds)
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def rate(per_s: float) -> str:
    """`0`, `0.25`, `12.3`, `1234`."""
    return f"{per_s:.0f}" if per_s >= 100 else f"{per_s:.3g}"


def share(value: float | None) -> str:
    """`0.12%`, or a dash without data."""
    return _NONE if value is None else f"{value * 100:.3g}%"


def size(size_bytes: float) -> str:
    """`512 B`, `12 kB`, `64 MB`."""
    for unit, limit in (("B", 1e3), ("kB", 1e6), ("MB", 1e9)):
        if size_bytes < limit:
            return f"{size_bytes / limit * 1e3:.0f} {unit}"
    return f"{size_bytes / 1e9:.1f} GB"


def ago(moment: str | None) -> str:
    """The time since that moment."""
    if moment is None:
        return _NONE
    return duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))


def _period(content: Mapping[str, Any]) -> str:
    return length(content["window_s"])


def length(seconds: float) -> str:
    """`90 s`, `5 minutes`, `2 hours`, `7 days`."""
    for noun, unit_s in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= unit_s and seconds % unit_s == 0:
            return count(round(seconds / unit_s), noun)
    return f"{seconds:.0f} s"


def _overview(content: Mapping[str, Any]) -> None:
    say(f"Foretell is {content['status']}.")
    for each in content["firing"]:
        say(f"  {printable(each['rule'])} ({printable(each['severity'])}): {printable(each['summary']['en'])}")
    _rows(
        ["service", "state", "for", "healthy"],
        [
            [each["service"], _state(each["state"]), ago(each["since"]), f"{each['healthy']} of {each['expected']}"]
            for each in content["services"]
        ],
        right=["for", "healthy"],
    )
    requests, predictions = content["requests"], content["predictions"]
    wrong, warnings = rate(content["errors_per_minute"]), rate(content["warnings_per_minute"])
    ready = sum(each["ready"] for each in content["queues"])
    drifting = ", ".join(printable(each) for each in content["drifting"])
    lines = [
        ("Requests", _line(content["requests_per_s"], content["request_durations"], requests["share_5xx"])),
        ("Predictions", _line(content["settled_per_s"], content["prediction_durations"], predictions["share"])),
        ("Workers", f"{content['workers']}, {content['workers_busy']} busy"),
        ("Queues", f"{ready} wait, {content['dead_letters']} dead letters"),
        ("Logs", f"{wrong} errors and {warnings} warnings a minute"),
        (
            "Revenue today",
            f"{count(content['revenue_credits'], 'credit')}, {count(content['revenue_predictions'], 'prediction')}",
        ),
        ("Alerts", f"{content['alerts_firing']} firing"),
        ("Drift", drifting or "none found"),
    ]
    say(f"In the last {_period(content)}:")
    for name, text in lines:
        say(f"  {name:<14} {text}")


def _line(per_s: float, took: Mapping[str, Any], failed: float | None) -> str:
    if not took["count"]:
        return "none"
    quantiles = f"p50 {milliseconds(took['p50_s'])}, p95 {milliseconds(took['p95_s'])}"
    return f"{rate(per_s)}/s, {quantiles}, {share(failed)} failed"


def _health(content: Mapping[str, Any]) -> None:
    # The status of the services only; `foretell monitor` shows the whole, with alerts.
    say(f"The services are {content['status']}.")
    _rows(
        ["service", "instance", "state", "for", "version", "address"],
        [
            [
                service["service"],
                each["instance"],
                _state(each["state"]),
                ago(each["since"]),
                each["version"],
                each["address"],
            ]
            for service in content["services"]
            for each in service["instances"]
        ],
        right=["for"],
    )
    for service in content["services"]:
        for each in service["instances"]:
            for part, why in each["failing"].items():
                say(printable(f"{each['instance']}: {part}: {why}"))


def _latency(content: Mapping[str, Any]) -> None:
    say(f"In the last {_period(content)}:")
    _took(["service", "route"], content["routes"], "requests")
    _took(["station", "model", "version"], content["models"], "runs")
    _took(["model", "version"], content["predictions"], "predictions")
    others = [
        {"what": "result to settlement", **content["settle_lag"]},
        *({"what": f"publish, {each['service']}", **each} for each in content["publishes"]),
        *({"what": f"database, {each['service']}", **each} for each in content["database"]),
    ]
    _took(["what"], [each for each in others if each["count"]], "times")


def _took(names: list[str], items: Iterable[Mapping[str, Any]], counted: str) -> None:
    numbers = [counted, "mean", "p50", "p95", "p99"]
    _rows(
        [*names, *numbers],
        [
            [
                *(each[name] for name in names),
                each["count"],
                *(milliseconds(each[field]) for field in ("mean_s", "p50_s", "p95_s", "p99_s")),
            ]
            for each in items
            if each["count"]
        ],
        right=numbers,
    )


def _throughput(content: Mapping[str, Any]) -> None:
    say(
        f"In the last {_period(content)}: {rate(content['requests_per_s'])} requests, "
        f"{rate(content['accepted_per_s'])} accepted, {rate(content['settled_per_s'])} settled a second."
    )
    _rows(
        ["service", "requests", "a second"],
        [[each["service"], each["count"], rate(each["per_s"])] for each in content["services"]],
        right=["requests", "a second"],
    )
    _rows(
        ["model", "version", "accepted", "a second", "tasks", "per second"],
        [
            [
                each["model"],
                each["version"],
                each["accepted"],
                rate(each["accepted_per_s"]),
                each["tasks"],
                rate(each["tasks_per_s"]),
            ]
            for each in content["models"]
        ],
        right=["accepted", "a second", "tasks", "per second"],
    )
    _rows(
        ["batches", "count", "mean", "p95"],
        [
            [each["station"], each["count"], f"{each['mean_items'] or 0:.3g}", f"{each['p95_items'] or 0:.3g}"]
            for each in content["batches"]
        ],
        right=["count", "mean", "p95"],
    )
    points = content["points"]
    for name in ("requests_per_s", "settled_per_s"):
        highest = max((point[name] for point in points), default=0.0)
        if highest > 0:
            word = name.split("_")[0]
            say(f"  {word:<9} {_spark([point[name] for point in points], highest)}  up to {rate(highest)}/s")


def _spark(values: list[float], highest: float) -> str:
    bars = " ▁▂▃▄▅▆▇█"
    return "".join(bars[min(8, round(value / highest * 8))] for value in values)


def _errors(content: Mapping[str, Any]) -> None:
    requests, predictions = content["requests"], content["predictions"]
    say(
        f"In the last {_period(content)}: {requests['count_5xx']} of {requests['count']} requests failed, "
        f"{predictions['failed']} of {predictions['ended']} predictions."
    )
    _rows(
        ["service", "route", "requests", "4xx", "5xx", "5xx share"],
        [
            [
                each["service"],
                each["route"],
                each["count"],
                each["count_4xx"],
                each["count_5xx"],
                share(each["share_5xx"]),
            ]
            for each in content["routes"]
            if each["count_4xx"] or each["count_5xx"]
        ],
        right=["requests", "4xx", "5xx", "5xx share"],
    )
    _rows(
        ["failed predictions", "count"],
        [[each["code"], each["count"]] for each in predictions["codes"]],
        right=["count"],
    )
    _rows(
        ["failing model", "version", "why", "rows"],
        [[each["model"], each["version"], each["reason"], each["count"]] for each in content["models"]],
        right=["rows"],
    )
    _rows(
        ["logs of", "warnings", "errors", "errors a minute"],
        [
            [each["service"], each["warnings"], each["errors"], rate(each["errors_per_minute"])]
            for each in content["logs"]
            if each["warnings"] or each["errors"]
        ],
        right=["warnings", "errors", "errors a minute"],
    )


def _workers(content: Mapping[str, Any]) -> None:
    say(
        f"{content['live']} run, {content['busy']} busy, {rate(content['tasks_per_s'])} tasks a second "
        f"in the last {_period(content)}."
    )
    _rows(
        ["worker", "state", "in hand", "done", "a second", "memory", "CPU", "up"],
        [
            [
                each["id"],
                _state(each["state"]),
                _in_hand(each),
                each["tasks_done"],
                rate(each["tasks_per_s"]),
                size(each["memory_bytes"]),
                share(each["cpu_share"]),
                duration(each["uptime_s"]),
            ]
            for each in content["items"]
        ],
        right=["done", "a second", "memory", "CPU", "up"],
    )


def _in_hand(worker: Mapping[str, Any]) -> str:
    task = worker["current_task"]
    if task is None:
        return "busy" if worker["busy"] else _NONE
    return f"{task['tasks']} {task['model']}"


def _queues(content: Mapping[str, Any]) -> None:
    _rows(
        ["queue", "ready", "oldest task", "dead letters", "came again", "as of"],
        [
            [
                each["queue"],
                each["ready"],
                milliseconds(each["oldest_task_age_s"]),
                Text(str(each["dead_letters"]), "red" if each["dead_letters"] else ""),
                each["redeliveries"],
                f"{ago(each['as_of'])} ago",
            ]
            for each in content["items"]
        ],
        right=["ready", "oldest task", "dead letters", "came again", "as of"],
    )
    if not content["items"]:
        say("No dispatcher has told of its queues lately.")
    _rows(
        ["published by", "confirmed", "failed", "a second", "p95"],
        [
            [each["service"], each["confirmed"], each["failed"], rate(each["per_s"]), milliseconds(each["p95_s"])]
            for each in content["publishes"]
        ],
        right=["confirmed", "failed", "a second", "p95"],
    )
    if content["queued_predictions"] is not None:
        held = count(content["held_credits"], "credit")
        say(f"Not ended yet: {count(content['queued_predictions'], 'prediction')}, with {held} held.")


def dead_letters(content: Mapping[str, Any]) -> None:
    """The dead letters of one queue."""
    say(f"{printable(content['queue'])} has {count(content['count'], 'dead letter')}.")
    _rows(
        ["message", "what", "model", "tasks", "size", "redriven", "why"],
        [
            [
                each["message_id"][:13],
                each["kind"],
                f"{each['model']} {each['version']}" if each["model"] else _NONE,
                each["tasks"] or _NONE,
                size(each["size_bytes"]),
                each["redriven"],
                each["reason"] or _NONE,
            ]
            for each in content["items"]
        ],
        right=["tasks", "size", "redriven"],
    )


def _revenue(content: Mapping[str, Any]) -> None:
    _rows(
        ["day", "model", "credits", "predictions"],
        [[each["day"], each["model"], each["credits"], each["predictions"]] for each in content["items"]],
        right=["credits", "predictions"],
    )
    say(f"{count(content['credits'], 'credit')} by {count(content['predictions'], 'prediction')}.")
    as_of = f"; last updated {ago(content['as_of'])} ago" if content["as_of"] else ""
    say(f"Days are UTC, {content['since']} to {content['until']}{as_of}.")


def _drift(content: Mapping[str, Any]) -> None:
    if not content["versions"]:
        say("No model version was looked at yet.")
    for version in content["versions"]:
        status = _plain(version["status"]).plain.replace("_", " ")
        windows = version.get("windows", [])
        rows = max((window["rows"] for window in windows), default=0)
        needed = max((field["rows_needed"] for window in windows for field in window["fields"]), default=0)
        missing = f" ({needed} are needed)" if rows < needed else ""
        say(f"{printable(version['model'])} {printable(version['version'])}: {status}, {rows} rows looked at{missing}.")
        if version.get("reason"):
            say(f"  {printable(version['reason'])}")
        _rows(
            ["what", "name", "status", "PSI", "why"],
            [
                [
                    each["part"],
                    each["name"],
                    Text(printable(each["status"]).replace("_", " "), "red" if each["drifted"] else ""),
                    _NONE if each.get("psi") is None else f"{each['psi']:.3f}",
                    " ".join(str(reason) for reason in each["reasons"]) or _NONE,
                ]
                for each in version.get("findings", [])
            ],
            right=["PSI"],
        )
        for each in version.get("not_compared", []):
            say(f"  Not compared: {printable(each['part'])} {printable(each['name'])}. {printable(each['reason'])}")


def _alerts(content: Mapping[str, Any]) -> None:
    if not content["open"]:
        say("Nothing is wrong.")
    _rows(
        ["alert", "severity", "state", "for", "what"],
        [
            [
                each["rule"],
                each["severity"],
                _state(each["state"]),
                ago(each["fired_at"] or each["pending_since"]),
                each["summary"].get("en", ""),
            ]
            for each in content["open"]
        ],
        right=["for"],
    )
    _rows(
        ["resolved", "severity", "ago", "what"],
        [
            [each["rule"], each["severity"], ago(each["resolved_at"]), each["summary"].get("en", "")]
            for each in content["resolved"][:10]
        ],
        right=["ago"],
    )


#: The function that shows each report, by its name.
SHOW: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "overview": _overview,
    "health": _health,
    "latency": _latency,
    "throughput": _throughput,
    "errors": _errors,
    "workers": _workers,
    "queues": _queues,
    "revenue": _revenue,
    "drift": _drift,
    "alerts": _alerts,
}
