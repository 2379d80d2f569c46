"""The command line. Each command imports what it needs when it runs, so that `--help` and `status` are quick."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import foretell
from foretell.cli.model_commands import models_app
from foretell.cli.monitor_commands import monitor_app, redrive
from foretell.cli.user_commands import users_app
from foretell.kit.errors import ForetellError
from foretell.kit.setting_files import take_from_files

app = typer.Typer(
    name="foretell",
    help="Foretell: put a trained model behind a metered API.",
    no_args_is_help=True,
    # Commands of commands take this over.
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(users_app, name="users")
app.add_typer(models_app, name="models")
app.add_typer(monitor_app, name="monitor")
app.command()(redrive)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"foretell {foretell.__version__}")
        raise typer.Exit


@contextmanager
def _data_dir(named: Path | None) -> Iterator[None]:
    """Set the data folder in the environment, for this command's settings and the services that it runs."""
    from foretell.local.installation import usual_data_dir

    before = os.environ.get("FORETELL_DATA_DIR")
    os.environ["FORETELL_DATA_DIR"] = os.path.abspath(named or before or usual_data_dir())
    try:
        yield
    finally:
        del os.environ["FORETELL_DATA_DIR"]
        if before is not None:
            os.environ["FORETELL_DATA_DIR"] = before


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show which release this is.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Data folder of the installation; default: FORETELL_DATA_DIR.")
    ] = None,
) -> None:
    """Foretell: put a trained model behind a metered API."""
    context.with_resource(_data_dir(data))


class EngineName(StrEnum):
    """What runs the services."""

    local = "local"
    docker = "docker"


Engine = Annotated[EngineName | None, typer.Option("--engine", help="Default: whichever runs, else local.")]
Workers = Annotated[int | None, typer.Option("--workers", "-w", help="How many ML workers; 3 at first.")]


@app.command()
def up(
    workers: Workers = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when all are healthy.")] = False,
    engine: Annotated[EngineName, typer.Option("--engine", help="local or docker.")] = EngineName.local,
) -> None:
    """Start everything: in the foreground until Ctrl-C, or with --detach in the background."""
    from foretell.cli import containers, running

    if engine == EngineName.docker:
        containers.up(workers)
    elif detach:
        running.up_detached(workers)
    else:
        running.up_foreground(workers)


@app.command()
def down(engine: Engine = None) -> None:
    """Stop everything, cleanly."""
    from foretell.cli import running

    running.down(engine)


@app.command()
def status(
    engine: Engine = None, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Show each process: state, health, port, pid, uptime. Ends with 0 if all is well, 1 if not, 3 if nothing runs."""
    from foretell.cli import running

    raise typer.Exit(running.status(engine, as_json=as_json))


@app.command()
def logs(
    service: Annotated[str | None, typer.Argument(help="A service (worker) or a process (worker-2); else all.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as they stand in the files.")] = False,
    engine: Engine = None,
) -> None:
    """Show logs, in the order of time."""
    from foretell.cli import running

    running.logs(service, follow=follow, lines=lines, as_json=as_json, engine=engine)


@app.command()
def scale(workers: Annotated[int, typer.Argument(help="How many ML workers.")], engine: Engine = None) -> None:
    """Change the number of ML workers while everything runs."""
    from foretell.cli import running

    running.scale(workers, engine)


@app.command()
def serve(name: Annotated[str, typer.Argument(help="app, dispatcher, worker, model, preprocessing, …")]) -> None:
    """Run one service in the foreground, with its settings from the environment."""
    from foretell.cli.serving import serve_in_foreground

    serve_in_foreground(name)


@app.command()
def prepare(
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="How many seconds the database may be away.")] = 0,
) -> None:
    """Bring the tables of the database to this release, once, before its services start. Again, it changes nothing."""
    from foretell.cli import preparing

    preparing.prepare(wait_s)


@app.command("write-secrets", hidden=True)
def write_secrets(folder: Annotated[Path, typer.Argument(help="Where a folder of each service is.")]) -> None:
    """Make the secrets of an installation in containers, and hand each service its own: for docker-compose.yaml."""
    from foretell.cli import preparing

    preparing.write_secrets(folder)


@app.command()
def bench(
    clients: Annotated[int, typer.Option("--clients", "-c", min=1, help="How many submit at once.")] = 64,
    seconds: Annotated[float, typer.Option("--seconds", "-s", min=1, help="How long.")] = 10,
) -> None:
    """Measure the engine that runs here: predictions a second, and how long one takes. Adds to its history."""
    from foretell.cli import benching

    benching.bench(clients=clients, seconds=seconds)


@app.command()
def audit(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Prove that states and money fit together. Ends with 1 when they do not."""
    from foretell.cli import operating

    operating.audit(as_json=as_json)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where to; compressed if its name ends in .gz or .tgz.")],
    replace: Annotated[bool, typer.Option("--replace", help="Put it in place of an earlier one.")] = False,
) -> None:
    """Copy everything of an embedded installation to one file, while it runs or not."""
    from foretell.cli import backups

    backups.backup(file, replace=replace)


@app.command()
def restore(file: Annotated[Path, typer.Argument(help="What foretell backup wrote.")]) -> None:
    """Bring an embedded installation that is stopped back to a backup. What was there before is kept aside."""
    from foretell.cli import backups

    backups.restore(file)


@app.command("migrate")
def migrate_(
    to: Annotated[str, typer.Option("--to", envvar="FORETELL_MIGRATE_TO", help="postgresql://…, an empty database.")],
    even_if_wrong: Annotated[bool, typer.Option("--even-if-wrong", help="Whatever the audit finds.")] = False,
) -> None:
    """Move an embedded installation that is stopped to PostgreSQL. Broken off, it goes on where it was."""
    from foretell.cli import backups

    backups.migrate(to, even_if_wrong=even_if_wrong)


@app.command()
def predict(
    model: str,
    fields: Annotated[list[str] | None, typer.Argument(metavar="FIELD=VALUE...", help="The input.")] = None,
    features: Annotated[bool, typer.Option("--features", help="The fields are features: skip preprocessing.")] = False,
    model_version: Annotated[str | None, typer.Option("--model-version", help="Default: the newest.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="Default: the engine that runs here.")] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Default in development: test.")] = None,
    password: Annotated[str | None, typer.Option("--password", "-p", help="Asked for when it is missing.")] = None,
    token: Annotated[str | None, typer.Option("--token", help="Access token or API key (FORETELL_API_KEY).")] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, help="How many seconds to wait.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as the API gives it.")] = False,
) -> None:
    """Ask for one prediction over HTTP and wait for its result."""
    from foretell.cli import predicting

    access = predicting.Access(url=url, user=user, password=password, token=token)
    predicting.predict(
        model, fields or [], features=features, version=model_version, access=access, timeout_s=timeout_s,
        as_json=as_json,
    )  # fmt: skip


def run() -> None:
    """The `foretell` command. What we can explain is one sentence and exit code 1."""
    try:
        take_from_files(os.environ)
        app(prog_name="foretell")
    except ForetellError as error:
        _fail(error.message)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if os.environ.get("FORETELL_TRACEBACK"):
            raise
        place = f" ({Path(os.fsdecode(error.filename))})" if error.filename else ""
        _fail(f"The system refused something: {error.strerror or error}{place}.")
    except Exception as error:
        if os.environ.get("FORETELL_TRACEBACK"):
            raise
        _fail(f"This is a fault of ours: {type(error).__name__}: {error}. FORETELL_TRACEBACK=1 shows where.")


def _fail(message: str) -> None:
    typer.echo(message, err=True)
    sys.exit(1)
