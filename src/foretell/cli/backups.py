"""backup, restore and migrate of an installation on the embedded database."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foretell.cli import operating
from foretell.cli.interrupting import signals_interrupt
from foretell.cli.output import count, duration, remark, remarks, say
from foretell.local.backups import making, restoring
from foretell.local.backups.making import Telling
from foretell.local.backups.parts import LEFT_OUT, MODELS, SECRETS, parts_of
from foretell.local.installation import Installation
from foretell.local.moving import moving


def backup(file: Path, *, replace: bool) -> None:
    """Write a backup. Raises the errors of `making.make`, `NotEmbedded`, `OtherSettings`, `IsOfBefore`."""
    installation = Installation.from_environment()
    parts = parts_of(installation)
    record = installation.read()
    names = tuple(sorted(record.settings)) if record and record.settings else ()
    place = installation.moved_to(parts.database)
    if place is not None:
        raise making.IsOfBefore(place=place, database=parts.database, file=installation.moved_file)
    with _broken_off("No backup was made, and nothing was left behind."), signals_interrupt(), _progress() as tell:
        made = making.make(file, parts, settings=names, replace=replace, tell=tell)
    entries = made.manifest.entries
    models = sum(entry.name.startswith(f"{MODELS}/") for entry in entries)
    inside = [entry.name for entry in entries if "/" not in entry.name]
    say(f"{made.path}: {made.size_bytes / 1024**2:,.1f} MiB, of {made.manifest.made_at}.")
    say(f"In it: {', '.join(inside)}, and {count(models, 'file')} of models. Keep it as safe as the data itself:")
    secret = f" The secrets ({', '.join(SECRETS)}) are in it, too." if any(name in inside for name in SECRETS) else ""
    say(f"it holds inputs and results, password hashes and the secrets of webhooks.{secret}")
    known = {"models", *inside, *LEFT_OUT}
    others = sorted(
        path.name
        for path in installation.data_dir.iterdir()
        if path.name not in known and not path.name.startswith((".", *inside)) and path.suffix not in (".lock", ".pid")
    )
    if others:
        remark(f"Not in it: {', '.join(others)} (in {installation.data_dir}).")


def restore(file: Path) -> None:
    """Restore a backup, and audit it. Raises the errors of `restoring.restore`, `NotEmbedded`."""
    installation = Installation.from_environment()
    parts = parts_of(installation)
    with installation.lock(_waiting):
        again = "Run the command again: either nothing was changed, or the rest is done then."
        with _broken_off(again), signals_interrupt(), _progress() as tell:
            restored = restoring.restore(file, installation, parts, tell=tell)
        installation.remove_run_files()
    say(f"{installation.data_dir} is as it was at {restored.manifest.made_at}.")
    if restored.aside is not None:
        say(f"What was there before is in {restored.aside}. Delete it when you need it no more.")
    settings = [name for name in restored.manifest.settings if name.startswith(("FORETELL_", "TELEGRAM_"))]
    if settings:
        say(f"It ran with these settings, which are not in a backup: {', '.join(settings)}")
    operating.audit(as_json=False)


def migrate(url: str, *, even_if_wrong: bool) -> None:
    """Move to PostgreSQL. Raises the errors of `moving.move`, `NotEmbedded`."""
    installation = Installation.from_environment()
    parts = parts_of(installation)
    started = time.monotonic()
    operating.quiet_logs()
    with installation.lock(_waiting), signals_interrupt():
        with _broken_off("Run the command again: it goes on where it was."), _progress() as tell:
            moved = moving.move(url, installation, parts, even_if_wrong=even_if_wrong, tell=tell)
        installation.remove_run_files()
    if not moved.rows:
        say("This was moved before, whole; nothing was left to do.")
    else:
        rows = sum(moved.rows.values())
        before = f", {moved.earlier:,} of them by an earlier try" if moved.earlier else ""
        say(f"Moved {rows:,} rows{before} in {duration(time.monotonic() - started)}; {_said_of(moved)}")
    say("Start it with the new address, here and wherever else a service runs:")
    say(f"  FORETELL_DATABASE_URL={_without_password(url)} python start.py --start")
    if parts.broker is not None:
        say(f"The broker is still {parts.broker}, unless FORETELL_BROKER_URL says otherwise.")
        say("Whatever the broker: what is queued is published anew at the start.")
    if parts.monitoring is not None and parts.monitoring.exists():
        say(f"Logs and metrics of before stay in {parts.monitoring}; the monitoring service begins anew in PostgreSQL.")
    say(f"{parts.database} is as it was. Delete it when you need it no more.")


def _said_of(moved: moving.Moved) -> str:
    if moved.findings:
        return "the audit finds the same there as here."
    return "the audit finds nothing wrong, here and there."


def _without_password(url: str) -> str:
    return re.sub(r"(://[^/?@:]*):[^@]*@", r"\1:…@", url)


def _waiting() -> None:
    remark("Another start or stop is under way here; waiting for it to end …")


@contextmanager
def _broken_off(what: str) -> Iterator[None]:
    """Report what an interruption by Ctrl-C means."""
    try:
        yield
    except KeyboardInterrupt:
        remark(f"Broken off. {what}")
        raise


@contextmanager
def _progress() -> Iterator[Telling]:
    with remarks.status("") as status:

        def tell(doing: str, done: int, size: int) -> None:
            status.update(f"{doing} …" + (f" {100 * done // size} %" if size else ""))

        yield tell
