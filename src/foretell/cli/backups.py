"""backup and restore of an installation on the embedded database."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foretell.cli import operating
from foretell.cli.interrupting import signals_interrupt
from foretell.cli.output import count, remark, remarks, say
from foretell.local.backups import making, restoring
from foretell.local.backups.making import Telling
from foretell.local.backups.parts import LEFT_OUT, MODELS, SECRETS, parts_of
from foretell.local.installation import Installation


def backup(file: Path, *, replace: bool) -> None:
    """Write a backup. Raises what `making.make` raises, `NotEmbedded`, `OtherSettings`."""
    installation = Installation.from_environment()
    parts = parts_of(installation)
    record = installation.read()
    names = tuple(sorted(record.settings)) if record and record.settings else ()
    with signals_interrupt(), _progress() as tell:
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
    """Put a backup in place of what is there, and audit it. Raises what `restoring.restore` raises, `NotEmbedded`."""
    installation = Installation.from_environment()
    parts = parts_of(installation)
    with installation.lock(lambda: remark("Another start or stop is under way here; waiting for it to end …")):
        with signals_interrupt(), _progress() as tell:
            restored = restoring.restore(file, installation, parts, tell=tell)
        installation.remove_run_files()
    say(f"{installation.data_dir} is as it was at {restored.manifest.made_at}.")
    if restored.aside is not None:
        say(f"What was there before is in {restored.aside}. Delete it when you need it no more.")
    settings = [name for name in restored.manifest.settings if name.startswith(("FORETELL_", "TELEGRAM_"))]
    if settings:
        say(f"It ran with these settings, which are not in a backup: {', '.join(settings)}")
    operating.audit(as_json=False)


@contextmanager
def _progress() -> Iterator[Telling]:
    with remarks.status("") as status:

        def tell(doing: str, done: int, size: int) -> None:
            status.update(f"{doing} …" + (f" {100 * done // size} %" if size else ""))

        yield tell
