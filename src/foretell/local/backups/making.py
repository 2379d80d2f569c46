"""Makes a backup of an installation, also while it runs."""

import errno
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from foretell import __version__
from foretell.broker.sqlite_copy import let_go
from foretell.inference.live import read_stamp
from foretell.kit.disk import free_bytes
from foretell.kit.errors import ForetellError
from foretell.local.backups import archive
from foretell.local.backups.archive import Entry, Manifest, entry_of
from foretell.local.backups.copying import Snapshot, Told
from foretell.local.backups.parts import BROKER, DATABASE, MODELS, Parts, version_of

#: How often the models are copied again if they change meanwhile.
_TRIES = 5
_MARGIN_BYTES = 1024 * 1024


class FileExists(ForetellError):
    """{path} is there already. Choose another name, or put the new backup in its place: --replace"""

    code = "file_exists"


class NothingToBackUp(ForetellError):
    """There is no database at {path}, so there is nothing to back up."""

    code = "nothing_to_back_up"


class IsOfBefore(ForetellError):
    """This installation moved to {place}: {database} lacks everything since. Back up PostgreSQL (docs/backup.md); to back up the old file all the same, delete {file}."""  # noqa: E501

    code = "is_of_before"


class NoRoomForBackup(ForetellError):
    """Too little room in {folder}: a backup takes up to {needed} while it is made; {free} is free."""

    code = "no_room_for_backup"


class BackupFailed(ForetellError):
    """The backup was not made ({reason}). Nothing was left behind."""

    code = "backup_failed"


class BackupUnderWay(ForetellError):
    """Another process makes {path} at this moment."""

    code = "backup_under_way"


class ModelsChange(ForetellError):
    """The folder of models {folder} changed again and again while it was copied. Try again when it does not."""

    code = "models_change"


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made."""

    path: Path
    size_bytes: int
    manifest: Manifest


#: Called with the current step, and its done and total bytes.
Telling = Callable[[str, int, int], None]


def make(
    target: Path,
    parts: Parts,
    *,
    settings: tuple[str, ...] = (),
    replace: bool = False,
    tell: Telling = lambda *_: None,
) -> Made:
    """Write a backup to `target`, atomically. `settings` are names of settings to store in it.

    Raises `FileExists`, `NothingToBackUp`, `NoRoomForBackup`, `BackupFailed`, `BackupUnderWay`, `ModelsChange`,
    `Damaged`, `OSError`.
    """
    target = Path(os.path.abspath(target))
    if target.exists() and not replace:
        raise FileExists(path=target)
    if not parts.database.exists():
        raise NothingToBackUp(path=parts.database)
    with _draft_folder(target) as folder:
        try:
            _check_room(folder, parts, compressed=archive.is_compressed(target.name))
            files = _gather(folder, parts, tell)
            entries, made_at = _describe(files), files.pop("made_at").read_text()
            manifest = Manifest(__version__, made_at, settings, entries)
            draft = folder / "backup"
            archive.write(
                draft, manifest, files,
                compressed=archive.is_compressed(target.name),
                told=lambda done, size: tell("Writing the archive", done, size),
            )  # fmt: skip
            size = draft.stat().st_size
            if not replace and target.exists():
                raise FileExists(path=target)
            draft.replace(target)
            _flush_folder(target.parent)
        except (sqlite3.Error, OSError) as error:
            if _no_room(error, folder):
                raise _too_little(folder, parts) from error
            if isinstance(error, OSError):
                raise
            raise BackupFailed(reason=error) from error
    return Made(target, size, manifest)


@contextmanager
def _draft_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`; first deletes the one of a killed backup."""
    folder = target.with_name(f".{target.name}.partial")
    with ExitStack() as stack:
        descriptor = os.open(target.parent, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        folder.mkdir(mode=0o700, exist_ok=True)
        inner = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, inner)
        try:
            fcntl.flock(inner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupUnderWay(path=target) from None
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield folder


def _gather(folder: Path, parts: Parts, tell: Telling) -> dict[str, Path]:
    """Copy every part below `folder`; returns the copies by their names in the archive, in their order."""
    tell("Copying the models", 0, 0)
    files = _copy_models(folder / MODELS, parts.models)
    for secret in parts.secrets:
        if secret.exists():
            files[secret.name] = Path(shutil.copyfile(secret, folder / secret.name))
    sources = {name: path for name, path in parts.databases().items() if path.exists()}
    for name, path in sources.items():
        if name not in (BROKER, DATABASE):
            with Snapshot(path) as snapshot:
                snapshot.copy(folder / name, _naming(name, tell))
            files[name] = folder / name
    # These two snapshots directly after each other: predictions in between are delayed after a restore.
    with ExitStack() as moments:
        held = {name: moments.enter_context(Snapshot(sources[name])) for name in (BROKER, DATABASE) if name in sources}
        (folder / "made_at").write_text(datetime.now(UTC).isoformat(timespec="seconds"))
        for name, snapshot in held.items():
            snapshot.copy(folder / name, _naming(name, tell))
            files[name] = folder / name
    if BROKER in files:
        let_go(files[BROKER])
    return {**files, "made_at": folder / "made_at"}


def _naming(name: str, tell: Telling) -> Told:
    return lambda done, size: tell(f"Copying {name}", done, size)


def _copy_models(target: Path, source: Path) -> dict[str, Path]:
    """Copy a consistent state of the operator's packages, including traffic.toml."""
    for _ in range(_TRIES):
        shutil.rmtree(target, ignore_errors=True)
        before = read_stamp(source)
        try:
            if source.is_dir():
                # Names that begin with a dot are drafts, and the stamp.
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        except (FileNotFoundError, shutil.Error):
            # A package was removed while it was copied.
            continue
        if read_stamp(source) == before:
            found = sorted(path for path in target.rglob("*") if path.is_file())
            return {f"{MODELS}/{path.relative_to(target).as_posix()}": path for path in found}
    raise ModelsChange(folder=source)


def _describe(files: dict[str, Path]) -> tuple[Entry, ...]:
    return tuple(
        entry_of(name, path, version_of(name, path) if name.endswith(".db") and "/" not in name else "")
        for name, path in files.items()
        if name != "made_at"
    )


def _size(parts: Parts) -> int:
    databases = sum(path.stat().st_size for path in parts.databases().values() if path.exists())
    models = parts.models.rglob("*") if parts.models.is_dir() else ()
    return databases + sum(path.stat().st_size for path in models if path.is_file())


def _check_room(folder: Path, parts: Parts, *, compressed: bool) -> None:
    """Check the free space before minutes of copying; copies and archive exist at the same time."""
    if free_bytes(folder) < _size(parts) * (1 if compressed else 2):
        raise _too_little(folder, parts)


def _too_little(folder: Path, parts: Parts) -> NoRoomForBackup:
    def readable(size: int) -> str:
        return f"{size / 1024**2:,.0f} MiB"

    place = folder.parent
    return NoRoomForBackup(folder=place, needed=readable(2 * _size(parts)), free=readable(free_bytes(place)))


def _no_room(error: sqlite3.Error | OSError, folder: Path) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return full or free_bytes(folder) < _MARGIN_BYTES


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
