"""Creates and updates `.venv`: the packages of a lock file, checked by their hashes, and this checkout in place.

Standard library only, because this runs before anything is installed. A stamp inside records what was installed, so
that a warm start does nothing; a marker exists during the work, so that an interrupted set-up is started again.
"""

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from foretell.kit.errors import ForetellError
from foretell.local.installing import install_locked, install_project, renew_pip

RUNTIME_LOCK = "requirements.lock"
#: Includes all packages of the runtime lock, in the same versions.
TEST_LOCK = "requirements-dev.lock"
_PIP_LOCK = "requirements-pip.lock"
#: Increase it when this file changes `.venv` in another way.
_STEP = 1

Say = Callable[[str], None]


class CannotSetUp(ForetellError):
    """The set-up in {folder} failed: {reason}."""

    code = "cannot_set_up"


class VenvModuleMissing(ForetellError):
    """This Python can't make virtual environments. Debian, Ubuntu: sudo apt install python{version}-venv"""

    code = "venv_module_missing"


class VirtualEnvironment:
    """The `.venv` of one checkout."""

    def __init__(self, root: Path, say: Say) -> None:
        """`root` is the folder of the checkout; `say` gets a sentence whenever something takes long."""
        self.root = root
        self.folder = root / ".venv"
        self.python = self.folder / "bin" / "python"
        self._say = say
        self._stamp_file = self.folder / ".foretell.json"
        self._marker = self.folder / ".unfinished"

    def usable(self) -> bool:
        """Whether it was completely set up once, also for an older lock file."""
        return self._stamp_file.is_file() and not self._marker.exists() and self.python.exists()

    def ensure(self, lock_name: str = RUNTIME_LOCK) -> bool:
        """Make sure that everything in the lock file is installed; returns whether anything was done.

        Raises `CannotSetUp`, `VenvModuleMissing`, `InstallFailed`.
        """
        try:
            with self._one_at_a_time():
                return self._ensure(lock_name)
        except OSError as error:
            raise CannotSetUp(folder=self.root, reason=_explain(error)) from error

    def _ensure(self, lock_name: str) -> bool:
        for leftover in self.root.glob(".venv-discarded-*"):
            _remove(leftover)
        stamp = self._stamp()
        why_anew = self._why_anew(stamp)
        if why_anew:
            self._say(why_anew)
            self._put_away()
            stamp = {}
        if self._complete(stamp, lock_name):
            return False
        if self.python.exists() and not any(self.folder.glob("lib/python*/site-packages/pip")):
            self._say("The packages have changed and the .venv here has no pip to renew them; making a new one.")
            self._put_away()
        if not self.python.exists():
            self._make()
        self._install(lock_name)
        return True

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        # Lock the folder itself: this leaves no file behind and needs no write permission.
        descriptor = os.open(self.root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say("Another start.py is setting up this folder; waiting for it to end …")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    # What is there

    def _stamp(self) -> dict[str, Any]:
        """The record of installed packages, empty if there is none."""
        try:
            stamp = json.loads(self._stamp_file.read_text(encoding="utf-8"))
            return stamp if isinstance(stamp, dict) else {}
        except (OSError, ValueError):
            return {}

    def _why_anew(self, stamp: Mapping[str, Any]) -> str:
        """Why `.venv` must be created again, or empty."""
        if not self.folder.exists() or not any(self.folder.iterdir()):
            return ""
        if self._marker.exists():
            return "The last set-up of .venv did not come to its end; making it anew."
        version = _version_of(self.python)
        if not version:
            return "The Python of .venv is gone or does not run; making .venv anew."
        if not stamp:
            return self._adopt(version)
        if stamp.get("step") != _STEP:
            return "This release sets up .venv in another way; making it anew."
        if stamp.get("python") != version:
            return f"The Python of .venv is {version} now and was {stamp.get('python')}; making .venv anew."
        if stamp.get("root") != str(self.root):
            return "This folder was moved or renamed; making .venv anew."
        return ""

    def _adopt(self, version: str) -> str:
        """Take over an environment without our stamp if it is complete; otherwise return the reason."""
        for lock_name in (TEST_LOCK, RUNTIME_LOCK):
            if _version_key(version) >= (3, 11) and self._holds_everything(self.root / lock_name):
                self._say(f"The .venv here was not made by start.py, but holds all of {lock_name}: using it.")
                self._write_stamp(lock_name, version, adopted=True)
                return ""
        return "The .venv here was not made by start.py and lacks packages; putting it aside and making a new one."

    def _holds_everything(self, lock: Path) -> bool:
        site_packages = next(iter(self.folder.glob("lib/python*/site-packages")), None)
        if site_packages is None or not lock.is_file():
            return False
        present = {_canonical(folder.name.removesuffix(".dist-info")) for folder in site_packages.glob("*.dist-info")}
        # Packages with a condition (`; sys_platform == …`) may be absent.
        wanted = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?=\s*\\?$)", lock.read_text(encoding="utf-8"), re.M)
        own = site_packages.glob("foretell-*.dist-info/direct_url.json")
        return any(map(self._is_this_checkout, own)) and all(
            _canonical(f"{name}-{version}") in present for name, version in wanted
        )

    def _is_this_checkout(self, direct_url: Path) -> bool:
        try:
            content = json.loads(direct_url.read_text(encoding="utf-8"))
            in_place = bool(content["dir_info"]["editable"])
            return in_place and Path(unquote(urlparse(content["url"]).path)) == self.root
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _complete(self, stamp: Mapping[str, Any], lock_name: str) -> bool:
        """Whether nothing has to be installed, according to the stamp (which `_adopt` may just have written)."""
        stamp = stamp or self._stamp()
        return bool(stamp) and all(stamp.get(name) == digest for name, digest in self._inputs(lock_name).items())

    def _inputs(self, lock_name: str) -> dict[str, str]:
        return {name: _sha256(self.root / name) for name in _covered_by(lock_name)}

    # What is done

    def _put_away(self) -> None:
        """Rename it in one step, so that a partial environment can't be mistaken for a whole one; delete it if ours."""
        stamp = self._stamp()
        ours = (stamp and not stamp.get("adopted")) or self._marker.exists() or not _version_of(self.python)
        moment = f"{time.time_ns():x}"
        target = self.root / (f".venv-discarded-{moment}" if ours else f".venv-aside-{moment}")
        self.folder.rename(target)
        if ours:
            _remove(target)

    def _make(self) -> None:
        if find_spec("venv") is None or find_spec("ensurepip") is None:
            raise VenvModuleMissing(version=f"{sys.version_info.major}.{sys.version_info.minor}")
        self._say(f"Making .venv with Python {platform.python_version()} …")
        self.folder.mkdir(exist_ok=True)
        self._marker.touch()
        # start.py may run with the Python of the .venv that was just put away: take the one from which that was made.
        python: str = getattr(sys, "_base_executable", None) or sys.executable
        answer = subprocess.run(  # noqa: S603 - our own interpreter
            [python, "-m", "venv", str(self.folder)], capture_output=True, text=True, check=False
        )
        if answer.returncode:
            said = (answer.stderr.strip() or answer.stdout.strip()).splitlines()
            raise CannotSetUp(folder=self.root, reason=said[-1] if said else "python -m venv failed without a word")

    def _install(self, lock_name: str) -> None:
        self._marker.touch()
        self._stamp_file.unlink(missing_ok=True)
        log = self.folder / "setup.log"
        log.unlink(missing_ok=True)
        # With a log of its own: in the other one its failure would pass for the reason of a later one.
        renew_pip(self.python, self.root / _PIP_LOCK, self.folder / "setup-pip.log")
        install_locked(self.python, self.root / lock_name, log, self._say)
        install_project(self.python, self.root, log, self._say)
        self._write_stamp(lock_name, _version_of(self.python))
        self._marker.unlink()

    def _write_stamp(self, lock_name: str, version: str, *, adopted: bool = False) -> None:
        stamp = {"step": _STEP, "python": version, "root": str(self.root), "adopted": adopted}
        stamp |= self._inputs(lock_name)
        draft = self._stamp_file.with_suffix(".new")
        draft.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        draft.replace(self._stamp_file)


def _covered_by(lock_name: str) -> tuple[str, ...]:
    return ("pyproject.toml", RUNTIME_LOCK, TEST_LOCK) if lock_name == TEST_LOCK else ("pyproject.toml", RUNTIME_LOCK)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _version_of(python: Path) -> str:
    """`3.11.7`, or empty if it does not run."""
    try:
        answer = subprocess.run(  # noqa: S603 - the Python of .venv
            [str(python), "-I", "-S", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _remove(folder: Path) -> None:
    """Delete as much as possible. Of a link only the link, since its target belongs to another checkout."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _explain(error: OSError) -> str:
    place = f" ({os.fsdecode(error.filename)})" if error.filename else ""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"this folder can't be written to{place}; copy Foretell into a folder that is yours and start it there"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{place}; free about 1 GB and start again"
    return f"{error.strerror or error}{place}"
