"""`foretell monitor …` and `foretell redrive`, as Typer reads them; what they do is in `monitoring.py`."""

from typing import Annotated, Any

import typer

monitor_app = typer.Typer(help="Reports of the monitoring service: health, load, errors, drift, alerts, logs.")

AsJson = Annotated[bool, typer.Option("--json", help="The report as the service gives it.")]
Window = Annotated[str, typer.Option("--window", "-w", metavar="LENGTH", help="How far back: 90s, 5m, 2h, 7d.")]
Url = Annotated[str | None, typer.Option("--url", help="Default: the installation that runs here.")]

_USUAL_WINDOW = "5m"


@monitor_app.callback(invoke_without_command=True)
def monitor(context: typer.Context, as_json: AsJson = False, window: Window = _USUAL_WINDOW, url: Url = None) -> None:
    """Reports of the monitoring service. Without a name, an overview."""
    if context.invoked_subcommand is None:
        _show("overview", as_json, url, window=window)
    elif as_json or url is not None or window != _USUAL_WINDOW:
        raise typer.BadParameter(f"Write options after the name: foretell monitor {context.invoked_subcommand} --json")


@monitor_app.command()
def health(as_json: AsJson = False, url: Url = None) -> None:
    """Health of services and instances, and since when."""
    _show("health", as_json, url)


@monitor_app.command()
def latency(as_json: AsJson = False, window: Window = _USUAL_WINDOW, url: Url = None) -> None:
    """Latency of requests, model runs and predictions."""
    _show("latency", as_json, url, window=window)


@monitor_app.command()
def throughput(as_json: AsJson = False, window: Window = _USUAL_WINDOW, url: Url = None) -> None:
    """Throughput, and sizes of batches."""
    _show("throughput", as_json, url, window=window)


@monitor_app.command()
def errors(as_json: AsJson = False, window: Window = _USUAL_WINDOW, url: Url = None) -> None:
    """Errors of requests, predictions and logs."""
    _show("errors", as_json, url, window=window)


@monitor_app.command()
def workers(as_json: AsJson = False, window: Window = _USUAL_WINDOW, url: Url = None) -> None:
    """Workers and their tasks."""
    _show("workers", as_json, url, window=window)


@monitor_app.command()
def queues(as_json: AsJson = False, window: Window = _USUAL_WINDOW, url: Url = None) -> None:
    """Queue depths and dead letters."""
    _show("queues", as_json, url, window=window)


@monitor_app.command()
def revenue(
    days: Annotated[int, typer.Option("--days", min=1, max=400, help="How many, today among them.")] = 7,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Revenue by model and day (UTC)."""
    _show("revenue", as_json, url, days=days)


@monitor_app.command()
def drift(as_json: AsJson = False, url: Url = None) -> None:
    """Drift of inputs and outputs from the training reference."""
    _show("drift", as_json, url)


@monitor_app.command()
def alerts(as_json: AsJson = False, url: Url = None) -> None:
    """Open and recent alerts."""
    _show("alerts", as_json, url)


@monitor_app.command()
def logs(
    service: Annotated[str | None, typer.Option("--service", "-s", help="app, worker, dispatcher, …")] = None,
    level: Annotated[str | None, typer.Option("--level", "-l", help="At least DEBUG, INFO, WARNING or ERROR.")] = None,
    text: Annotated[str | None, typer.Option("--text", "-t", help="A part of the message or the fields.")] = None,
    prediction_id: Annotated[str | None, typer.Option("--prediction", help="All about one prediction.")] = None,
    trace_id: Annotated[str | None, typer.Option("--trace", help="All of one trace.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="10m, 2h, 7d, or 2026-01-05T09:30:00Z.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="How many, at most.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    url: Url = None,
) -> None:
    """Log lines of all services, found by the monitoring service."""
    from foretell.cli import monitoring
    from foretell.local.services import logged_name

    wanted = {
        "service": service and logged_name(service),
        "text": text,
        "prediction_id": prediction_id,
        "trace_id": trace_id,
    }
    monitoring.logs(
        {name: value for name, value in wanted.items() if value is not None},
        level=level,
        since=since,
        lines=lines,
        follow=follow,
        as_json=as_json,
        url=url,
    )


def redrive(
    queue: Annotated[str, typer.Argument(help="ml_tasks, ml_tasks.POOL or ml_results.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many, at most.")] = 1000,
    discard: Annotated[bool, typer.Option("--discard", help="Throw all of them away, in place of sending.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it; without this, only show them.")] = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Send dead letters of a queue back to it, or discard them. First shows them; with --yes, does it."""
    from foretell.cli import monitoring

    monitoring.redrive(queue, limit=limit, discard=discard, yes=yes, as_json=as_json, url=url)


def _show(name: str, as_json: bool, url: str | None, **parameters: Any) -> None:
    from foretell.cli import monitoring

    monitoring.report(name, parameters, as_json=as_json, url=url)
