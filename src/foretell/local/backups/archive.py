"""The file of a backup: a tar archive that begins with a manifest, compressed if its name ends in .gz or .tgz."""

import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from foretell.kit.errors import ForetellError
from foretell.local.backups.copying import Told
from foretell.local.backups.parts import BOT, BROKER, DATABASE, MODELS, MONITORING, SECRETS

FORMAT = 1
MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_DATABASES = (DATABASE, BROKER, MONITORING, BOT)


class NoBackup(ForetellError):
    """{path} is no backup of Foretell: {reason}. Nothing was changed."""

    code = "no_backup"


class BackupDamaged(ForetellError):
    """{path} is damaged: {reason}. Nothing was changed."""

    code = "backup_damaged"


class BackupNewer(ForetellError):
    """{path} was made by a newer release ({release}; {what}). Restore it with that one. Nothing was changed."""

    code = "backup_newer"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in a backup."""

    #: `foretell.db`, `secret_key`, `models/NAME/VERSION/model.toml` and so on.
    name: str
    size_bytes: int
    sha256: str
    #: For a database, the version of its tables.
    version: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a backup."""

    foretell: str
    #: ISO 8601, UTC: the time of the snapshot of the product's database.
    made_at: str
    #: Names of the settings of the running engine; their values are not in the backup.
    settings: tuple[str, ...]
    entries: tuple[Entry, ...]

    def encoded(self) -> bytes:
        """As bytes for the archive."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode()

    @classmethod
    def decoded(cls, body: bytes, path: Path) -> "Manifest":
        """Raises `NoBackup`, `BackupDamaged`, `BackupNewer`."""
        try:
            content = json.loads(body)
            release, format_ = str(content["foretell"]), int(content.pop("format"))
            if format_ > FORMAT:
                raise BackupNewer(path=path, release=release, what=f"format {format_}")
            content["entries"] = tuple(Entry(**entry) for entry in content["entries"])
            content["settings"] = tuple(content["settings"])
            manifest = cls(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackupDamaged(path=path, reason="its manifest can't be read") from error
        for entry in manifest.entries:
            if not _is_ours(entry.name):
                raise BackupDamaged(path=path, reason=f"its manifest names {entry.name!r}")
        return manifest


def _is_ours(name: str) -> bool:
    if name in _DATABASES or name in SECRETS:
        return True
    parts = PurePosixPath(name).parts
    return len(parts) > 1 and parts[0] == MODELS and ".." not in parts and "\0" not in name


def entry_of(name: str, file: Path, version: str = "") -> Entry:
    """The entry of a file in the manifest."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return Entry(name, stream.tell(), digest, version)


def is_compressed(name: str) -> bool:
    """Whether a backup of this name is compressed."""
    return name.endswith((".gz", ".tgz"))


def write(
    target: Path, manifest: Manifest, files: dict[str, Path], *, compressed: bool, told: Told = lambda *_: None
) -> None:
    """Write an archive to the new file `target`, readable only by its owner, and flush it to the disk."""
    size = sum(entry.size_bytes for entry in manifest.entries)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        with _opened(stream, compressed) as archive:
            body = manifest.encoded()
            archive.addfile(_info(MANIFEST, len(body)), io.BytesIO(body))
            done = 0
            for entry in manifest.entries:
                with files[entry.name].open("rb") as source:
                    archive.addfile(_info(entry.name, entry.size_bytes), _Watched(source, done, size, told))
                done += entry.size_bytes
        stream.flush()
        os.fsync(stream.fileno())


def _opened(stream: BinaryIO, compressed: bool) -> tarfile.TarFile:
    if compressed:
        # The content is mostly text, for which the fastest level is sufficient.
        return tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1, format=tarfile.PAX_FORMAT)
    return tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT)


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


class _Watched(io.RawIOBase):
    """Reports the progress of reading a file."""

    def __init__(self, source: BinaryIO, before: int, size: int, told: Told) -> None:
        self._source, self._done, self._size, self._told = source, before, size, told

    def read(self, size: int = -1) -> bytes:
        read = self._source.read(size)
        self._done += len(read)
        self._told(self._done, self._size)
        return read


class Backup:
    """A backup that is read sequentially."""

    def __init__(self, path: Path) -> None:
        """Reads the manifest. Raises `NoBackup`, `BackupDamaged`, `BackupNewer`."""
        self.path = path
        try:
            self._stream = path.open("rb")
        except FileNotFoundError as error:
            raise NoBackup(path=path, reason="there is no such file") from error
        except IsADirectoryError as error:
            raise NoBackup(path=path, reason="it is a folder") from error
        except OSError as error:
            raise NoBackup(path=path, reason=f"it can't be opened ({error.strerror})") from error
        try:
            self._archive = tarfile.open(fileobj=self._stream, mode="r|*", bufsize=_CHUNK_BYTES)  # noqa: SIM115
            first = self._archive.next()
            if first is None or first.name != MANIFEST or first.size > _MAX_MANIFEST_BYTES:
                raise NoBackup(path=path, reason="it does not begin with a manifest")
            source = self._archive.extractfile(first)
            self.manifest = Manifest.decoded(source.read() if source else b"", path)
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            self._stream.close()
            raise NoBackup(path=path, reason="it can't be read as one") from error
        except BaseException:
            self._stream.close()
            raise

    def close(self) -> None:
        self._stream.close()

    def files(self) -> Iterator[tuple[Entry, BinaryIO]]:
        """Every file in the manifest, in its order; the bytes are not verified yet (`copy_verified`).

        Raises `BackupDamaged` for an archive with other content.
        """
        try:
            for entry in self.manifest.entries:
                info = self._archive.next()
                if info is None or info.name != entry.name or not info.isreg() or info.size != entry.size_bytes:
                    raise BackupDamaged(path=self.path, reason=f"{entry.name} is not where it should be")
                source = self._archive.extractfile(info)
                assert source is not None
                yield entry, source  # type: ignore[misc]
            if self._archive.next() is not None:
                raise BackupDamaged(path=self.path, reason="it holds more than its manifest says")
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise BackupDamaged(path=self.path, reason="it ends before its end") from error

    def copy_verified(self, entry: Entry, source: BinaryIO, target: Path) -> None:
        """Write the bytes of `entry` to the new file `target`, and flush it to the disk. Raises `BackupDamaged`."""
        digest = hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as copy:
            try:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    copy.write(chunk)
            except (tarfile.TarError, EOFError, zlib.error) as error:
                raise BackupDamaged(path=self.path, reason=f"{entry.name} ends before its end") from error
            copy.flush()
            os.fsync(copy.fileno())
        if digest.hexdigest() != entry.sha256:
            raise BackupDamaged(path=self.path, reason=f"{entry.name} is not what was written")
