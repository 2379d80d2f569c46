"""Restores an installation from a backup. The previous files are kept aside.

Everything is first unpacked and verified beside its place. Then a plan is written, and after that there are only
renames: if the process is killed during them, the next restore or start finishes them (`finish`).
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from foretell.kit.errors import ForetellError
from foretell.local import leftovers
from foretell.local.backups.archive import Backup, BackupNewer, Manifest, NoBackup
from foretell.local.backups.copying import check, make_whole
from foretell.local.backups.making import Telling
from foretell.local.backups.parts import DATABASE, MODELS, Parts, is_known, version_of
from foretell.local.installation import Installation

_STAGED = ".restoring"
#: SQLite's files beside a database, which are moved with it.
_BESIDE = ("", "-wal", "-shm", "-journal")


class IsMounted(ForetellError):
    """{path} is where a disk is mounted, so nothing can take its place. Restore into another folder."""

    code = "is_mounted"


class StillRunning(ForetellError):
    """Foretell runs here ({folder}). Stop it first: foretell down, or python start.py --stop. Nothing was changed."""

    code = "still_running"


class MovedAway(ForetellError):
    """This installation moved to {place}, which no restore changes. Restore into another folder (FORETELL_DATA_DIR), or delete {file} to go back to the embedded database. Nothing was changed."""  # noqa: E501

    code = "moved_away"


@dataclass(frozen=True, slots=True)
class Move:
    """The renames of one part: `target` to `aside`, then `staged` to `target`."""

    #: Empty for a part that is not in the backup.
    staged: str
    target: str
    aside: str


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of a restore."""

    manifest: Manifest
    #: The folder with the previous files; None if there were none.
    aside: Path | None


def check_stopped(installation: Installation) -> None:
    """Raises `StillRunning` while a process of this installation lives."""
    if leftovers.processes_of(installation.data_dir):
        raise StillRunning(folder=installation.data_dir)


def restore(file: Path, installation: Installation, parts: Parts, *, tell: Telling = lambda *_: None) -> Restored:
    """Replace the installation by the backup `file`. The caller holds `installation.lock`.

    Raises `StillRunning`, `MovedAway`, `InUse`, `NoBackup`, `BackupDamaged`, `BackupNewer`, `OSError`; then nothing
    was changed.
    """
    check_stopped(installation)
    place = installation.moved_to(parts.database)
    if place is not None:
        raise MovedAway(place=place, file=installation.moved_file)
    finish(installation)
    for path in _targets(parts):
        if os.path.ismount(path):
            raise IsMounted(path=path)
    for path in parts.databases().values():
        make_whole(path)
    backup = Backup(file)
    try:
        places = _places(backup.manifest, parts, file)
        staged = {target: target.with_name(target.name + _STAGED) for target in _targets(parts)}
        _clear(staged.values())
        try:
            _unpack(backup, places, parts, staged, tell)
            _flush(installation.data_dir)
        except BaseException:
            _clear(staged.values())
            raise
    finally:
        backup.close()
    plan = _plan(staged)
    _write_plan(installation.restore_plan, plan)
    finish(installation)
    kept = [Path(move.aside).parent for move in plan if os.path.lexists(move.aside)]
    return Restored(backup.manifest, kept[0] if kept else None)


def finish(installation: Installation) -> bool:
    """Finish a restore that was killed during its renames; returns whether there was one."""
    file = installation.restore_plan
    try:
        moves = [Move(**move) for move in json.loads(file.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return False
    for move in moves:
        _carry_out(move)
    for folder in {Path(move.target).parent for move in moves}:
        if folder.is_dir():
            _flush(folder)
    file.unlink()
    _flush(file.parent)
    return True


def _carry_out(move: Move) -> None:
    """Do the renames of one part. Can be repeated: finished renames are skipped."""
    staged, target, aside = Path(move.staged), Path(move.target), Path(move.aside)
    if move.staged and not os.path.lexists(staged):
        return
    for suffix in _BESIDE:
        old, kept = Path(f"{target}{suffix}"), Path(f"{aside}{suffix}")
        if os.path.lexists(old) and not os.path.lexists(kept):
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            old.rename(kept)
    if move.staged:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        staged.rename(target)


def _targets(parts: Parts) -> list[Path]:
    return [*parts.databases().values(), *parts.secrets, parts.models]


def _places(manifest: Manifest, parts: Parts, file: Path) -> Mapping[str, Path]:
    """The places for each database and secret of the backup. Raises `NoBackup`, `BackupNewer`."""
    names = {entry.name for entry in manifest.entries}
    if DATABASE not in names:
        raise NoBackup(path=file, reason=f"there is no {DATABASE} in it")
    for entry in manifest.entries:
        if "/" not in entry.name and not is_known(entry.name, entry.version):
            what = f"{entry.name} is at revision {entry.version}"
            raise BackupNewer(path=file, release=manifest.foretell, what=what)
    return {**parts.databases(), **{secret.name: secret for secret in parts.secrets}}


def _unpack(
    backup: Backup, places: Mapping[str, Path], parts: Parts, staged: Mapping[Path, Path], tell: Telling
) -> None:
    """Verify every byte while it is written beside its place, and then the consistency of the databases."""
    size, done = sum(entry.size_bytes for entry in backup.manifest.entries), 0
    databases = []
    for entry, source in backup.files():
        tell(f"Unpacking {entry.name}", done, size)
        done += entry.size_bytes
        if entry.name.startswith(f"{MODELS}/"):
            target = staged[parts.models] / entry.name.removeprefix(f"{MODELS}/")
        elif entry.name in places:
            target = staged[places[entry.name]]
        else:
            # This installation has that database on a server.
            continue
        backup.copy_verified(entry, source, target)
        if entry.name.endswith(".db") and "/" not in entry.name:
            databases.append((entry, target))
    for entry, target in databases:
        tell(f"Checking {entry.name}", done, size)
        check(target)
        try:
            version = version_of(entry.name, target)
        except sqlite3.Error as error:
            raise NoBackup(path=backup.path, reason=f"{entry.name} is none of its databases") from error
        if not is_known(entry.name, version):
            raise BackupNewer(path=backup.path, release=backup.manifest.foretell, what=f"{entry.name} at {version}")


def _plan(staged: Mapping[Path, Path]) -> list[Move]:
    stamp = f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    return [
        Move(str(fresh) if fresh.exists() else "", str(target), str(target.parent / stamp / target.name))
        for target, fresh in staged.items()
    ]


def _write_plan(file: Path, plan: list[Move]) -> None:
    draft = file.with_suffix(".new")
    with draft.open("w", encoding="utf-8") as stream:
        json.dump([asdict(move) for move in plan], stream)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
    _flush(file.parent)


def _clear(left: Iterable[Path]) -> None:
    """Remove the files of an unfinished unpacking."""
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            with suppress(FileNotFoundError):
                path.unlink()


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
