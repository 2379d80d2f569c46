"""Uploaded model packages: unpacked with limits, checked and installed by a separate process.

The service that receives them loads no model. Code of a package runs in that process, which has none of the service's
secrets.
"""

import asyncio
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from pydantic import Field

from foretell.inference.package import MANIFEST
from foretell.kit.errors import ForetellError
from foretell.kit.settings import ServiceSettings

_MOST_FILES = 2000
#: Limit of the unpacked size, as a multiple of the limit of the archive.
_MOST_UNPACKED = 16
_CHUNK_BYTES = 1024 * 1024
CHECK_TIMEOUT_S = 180.0
_MOST_OUTPUT_BYTES = 1024 * 1024
#: Environment variables that are passed to the checking process.
_PASSED_ON = ("PATH", "LANG", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "FORETELL_ALLOWED_PICKLES", "OMP_NUM_THREADS")


class UploadSettings(ServiceSettings):
    """Settings of a service that accepts packages."""

    #: Whether operators may send model packages, whose code then runs here; default: only in development.
    model_uploads: bool | None = None
    max_package_bytes: int = Field(default=24 * 1024 * 1024, ge=1024)

    @property
    def uploads_allowed(self) -> bool:
        """Whether operators may send model packages."""
        return not self.production if self.model_uploads is None else self.model_uploads


class NoUploads(ForetellError):
    """Packages can't be sent here: FORETELL_MODEL_UPLOADS is off. Whoever may send one may run code on this machine."""

    code = "no_uploads"
    status = 403


class NotAPackage(ForetellError):
    """This is no package: {reason}."""

    code = "not_a_package"
    status = 422


class CannotCheck(ForetellError):
    """A package can't be checked by this process: {reason}. Install it with: foretell models add"""

    code = "cannot_check"
    status = 503
    outcome = "not_done"
    retry_after_s = 30.0


class CheckTooLong(ForetellError):
    """The check did not end within {timeout_s} seconds, and was ended."""

    code = "check_too_long"
    status = 422


class Checked(msgspec.Struct):
    """The findings of a check, step by step, and the outcome."""

    findings: list[dict[str, str]] = msgspec.field(default_factory=list)
    ready: bool = False
    installed: bool = False
    name: str | None = None
    version: str | None = None
    reason: str | None = None


class Archive(msgspec.Struct, frozen=True):
    """A package as it was sent, in a file."""

    path: Path
    digest: str
    size_bytes: int


class Arriving:
    """Accepts packages, one at a time, because each check loads a model."""

    def __init__(self, settings: UploadSettings) -> None:
        self._settings = settings
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def archive(self, content: AsyncIterator[bytes]) -> AsyncIterator[Archive]:
        """`content` in a temporary file. Raises `NoUploads`, and the errors of `content`."""
        if not self._settings.uploads_allowed:
            raise NoUploads
        async with self._turn:
            with tempfile.TemporaryDirectory(prefix="foretell-package-") as place:
                yield await _store(content, Path(place) / "package.zip")

    async def check(self, archive: Archive, folder: Path, *, install: bool, replace: bool) -> Checked:
        """Check the package in this ZIP archive, and with `install`, install it into `folder` if it is ready.

        Raises `NotAPackage`, `CheckTooLong`, `CannotCheck`.
        """
        place = archive.path.parent
        most = _MOST_UNPACKED * self._settings.max_package_bytes
        root = await asyncio.to_thread(_unpack, archive.path, place / "package", most)
        arguments = ["-P", "-m", "foretell.inference.check_process", str(root)]
        if install:
            into = await asyncio.to_thread(folder.absolute)
            arguments += ["--into", str(into), *(["--replace"] if replace else [])]
        said, errors = place / "said", place / "errors"
        # Output goes to files, so that a model that prints endlessly can't fill our memory.
        with said.open("wb") as out, errors.open("wb") as err:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                cwd=place,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            raise CheckTooLong(timeout_s=round(CHECK_TIMEOUT_S)) from None
        finally:
            # Kills its child processes, too.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        checked = _read(_end_of(said))
        if process.returncode and not checked.findings:
            last = _end_of(errors).decode(errors="replace").strip().splitlines()[-1:]
            raise CannotCheck(reason=last[0][:300] if last else f"it ended with {process.returncode}")
        return checked


async def _store(content: AsyncIterator[bytes], path: Path) -> Archive:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as stream:
        async for chunk in content:
            digest.update(chunk)
            size += len(chunk)
            await asyncio.to_thread(stream.write, chunk)
    return Archive(path, digest.hexdigest(), size)


def _unpack(archive: Path, target: Path, most_bytes: int) -> Path:
    """The folder of the package in an archive: its root, or its only folder."""
    target.mkdir()
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = packed.infolist()
            if len(entries) > _MOST_FILES:
                raise NotAPackage(reason=f"it has more than {_MOST_FILES} files")
            left = most_bytes
            for entry in entries:
                place = _place_of(entry, target)
                if entry.is_dir():
                    place.mkdir(parents=True, exist_ok=True)
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                # Do not trust the sizes in the archive; count while unpacking.
                with packed.open(entry) as source, place.open("xb") as stream:
                    while chunk := source.read(_CHUNK_BYTES):
                        left -= len(chunk)
                        if left < 0:
                            raise NotAPackage(reason=f"it unpacks to more than {most_bytes} bytes")
                        stream.write(chunk)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, ValueError, EOFError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise NotAPackage(reason=f"it can't be unpacked as a ZIP archive ({type(error).__name__})") from error
    if (target / MANIFEST).is_file():
        return target
    inside = [each for each in target.iterdir() if not each.name.startswith((".", "__MACOSX"))]
    if len(inside) == 1 and (inside[0] / MANIFEST).is_file():
        return inside[0]
    raise NotAPackage(reason=f"there is no {MANIFEST} in it, at the top or in its only folder")


def _place_of(entry: zipfile.ZipInfo, target: Path) -> Path:
    path = PurePosixPath(entry.filename)
    kind = entry.external_attr >> 16 & 0o170000
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or "\0" in entry.filename:
        raise NotAPackage(reason="a name in it leads out of it")
    if kind not in (0, 0o100000, 0o040000):
        raise NotAPackage(reason="there is a link or a device in it")
    return target / path


def _end_of(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _MOST_OUTPUT_BYTES))
        return stream.read()


def _read(told: bytes) -> Checked:
    checked = Checked()
    for line in told.splitlines():
        try:
            said: Any = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        if "step" in said:
            checked.findings.append({name: str(said[name]) for name in ("step", "outcome", "detail")})
        elif "ready" in said:
            checked.ready, checked.installed = bool(said["ready"]), bool(said["installed"])
            checked.name, checked.version = said.get("name"), said.get("version")
            checked.reason = said.get("reason")
    return checked
