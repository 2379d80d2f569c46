"""Model packages that operators send: unpacked with bounds, checked and installed by a process of its own.

The app itself loads no model. What is in a package runs in that process, which has none of the app's secrets.
"""

import asyncio
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from foretell.inference.live import operators_folder
from foretell.inference.package import MANIFEST
from foretell.kit.errors import ForetellError
from foretell.services.app.settings import AppSettings

_MOST_FILES = 2000
#: What a package may become, as a multiple of what it may be.
_MOST_UNPACKED = 16
_CHUNK_BYTES = 1024 * 1024
_CHECK_TIMEOUT_S = 180.0
_MOST_OUTPUT_BYTES = 1024 * 1024
#: What the process that checks may know of this one's surroundings.
_PASSED_ON = ("PATH", "LANG", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "FORETELL_ALLOWED_PICKLES", "OMP_NUM_THREADS")


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


class CheckTooLong(ForetellError):
    """The check did not end within {timeout_s} seconds, and was ended."""

    code = "check_too_long"
    status = 422


@dataclass
class Checked:
    """What a check found, step by step, and what became of the package."""

    digest: str
    size_bytes: int
    findings: list[dict[str, str]] = field(default_factory=list)
    ready: bool = False
    installed: bool = False
    name: str | None = None
    version: str | None = None
    reason: str | None = None


class Packages:
    """Takes packages, one at a time: each loads a model."""

    def __init__(self, settings: AppSettings) -> None:
        self._settings = settings
        self._turn = asyncio.Lock()

    @property
    def folder(self) -> Path:
        """Where operators' packages are."""
        return operators_folder(self._settings.models_dir, self._settings.data_dir)

    async def take(
        self,
        content: AsyncIterator[bytes],
        *,
        install: bool,
        replace: bool,
        arrived: Callable[[], Awaitable[None]],
    ) -> Checked:
        """Check the package in this ZIP archive, and install it if it is ready and that is asked for.

        `arrived` is awaited before anything of it runs. Raises `NoUploads`, `NotAPackage`, `CheckTooLong`,
        `CannotCheck`, and what `content` and `arrived` raise.
        """
        if not self._settings.uploads_allowed:
            raise NoUploads
        async with self._turn:
            with tempfile.TemporaryDirectory(prefix="foretell-package-") as place:
                archive, unpacked = Path(place) / "package.zip", Path(place) / "package"
                checked = await _store(content, archive)
                await arrived()
                most = _MOST_UNPACKED * self._settings.max_package_bytes
                root = await asyncio.to_thread(_unpack, archive, unpacked, most)
                await self._check(root, Path(place), checked, install=install, replace=replace)
                return checked

    async def _check(self, root: Path, place: Path, checked: Checked, *, install: bool, replace: bool) -> None:
        arguments = ["-P", "-m", "foretell.inference.check_process", str(root)]
        if install:
            arguments += ["--into", str(self.folder.absolute()), *(["--replace"] if replace else [])]
        said, errors = place / "said", place / "errors"
        # To files: a model that talks without end fills no memory of ours.
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
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            raise CheckTooLong(timeout_s=round(_CHECK_TIMEOUT_S)) from None
        finally:
            # With whatever it started.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        _read(_end_of(said), checked)
        if process.returncode and not checked.findings:
            last = _end_of(errors).decode(errors="replace").strip().splitlines()[-1:]
            raise CannotCheck(reason=last[0][:300] if last else f"it ended with {process.returncode}")


async def _store(content: AsyncIterator[bytes], archive: Path) -> Checked:
    digest, size = hashlib.sha256(), 0
    with archive.open("wb") as stream:
        async for chunk in content:
            digest.update(chunk)
            size += len(chunk)
            await asyncio.to_thread(stream.write, chunk)
    return Checked(digest.hexdigest(), size)


def _unpack(archive: Path, target: Path, most_bytes: int) -> Path:
    """The folder of the package in an archive: the root of it, or the only folder in it."""
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
                # What the archive says of its sizes, whoever made it made up.
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


def _read(told: bytes, checked: Checked) -> None:
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
