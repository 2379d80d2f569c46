"""Runs pip, shows the progress, and reports a failure in one sentence. Standard library only.

It uses pip and not a faster tool, because pip uses the machine's settings: mirrors, proxies, certificates.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from foretell.kit.errors import ForetellError

Say = Callable[[str], None]

_REQUIREMENT = re.compile(r"^[A-Za-z0-9._-]+==", re.MULTILINE)
#: "Collecting" is for a package from an index; for a file: "Processing /mirror/httpx-0.28.1-py3-none-any.whl".
_COLLECTING = re.compile(r"^(?:Collecting ([\w.-]+)|Processing (?:\S*/)?([\w.]+)-)")
_SAY_EVERY = 10
#: Without bytecode: see `_compile`.
_INSTALL = ("install", "--no-compile", "--require-hashes")


class InstallFailed(ForetellError):
    """{reason} All that pip said: {log}"""

    code = "install_failed"


# In this order, because a full disk or a broken network also causes other messages of pip.
_REASONS = (
    (r"No space left on device|Disk quota exceeded", "The disk is full: free about 1 GB and start again."),
    (r"Read-only file system|Permission denied", "A folder can't be written to: use one that is yours."),
    (
        r"DO NOT MATCH THE HASHES",
        "A package is not the one that was tested: its hash differs. It may have been tampered with, or the mirror is"
        " at fault; try again, and with another index if it stays.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "The package index shows a certificate that this machine does not trust. Behind a proxy, set PIP_CERT.",
    ),
    (
        r"name resolution|Name or service not known|nodename nor servname|NewConnectionError|Connection refused|"
        r"Network is unreachable|No route to host|ProxyError|timed out|ConnectTimeout|ReadTimeout|Connection aborted",
        "The package index can't be reached. Check the network (behind a proxy set HTTPS_PROXY, with a mirror"
        " PIP_INDEX_URL) and start again.",
    ),
    (
        r"No matching distribution found for (?P<package>\S+)",
        "The index that pip uses (see `pip config list`) can't be reached, or has no package {package} for this Python"
        " and machine.",
    ),
)


def renew_pip(python: Path, lock: Path, log: Path) -> None:
    """Install the pip of a lock file; where that fails, the one that came with Python goes on, with the same result.

    pip 23, which came with Python 3.11, takes 1.6 times as long for the packages of the tests.
    """
    with suppress(InstallFailed):
        _pip(python, [*_INSTALL, "--retries", "0", "--requirement", str(lock)], log, lambda _: None)


def install_locked(python: Path, lock: Path, log: Path, say: Say) -> None:
    """Install everything in a lock file, with hash checks. Raises `InstallFailed`."""
    total = len(_REQUIREMENT.findall(lock.read_text(encoding="utf-8")))
    say(f"Installing {total} packages from {lock.name} …")
    progress = _Progress(total, say)
    _pip(python, [*_INSTALL, "--requirement", str(lock)], log, progress.look_at)
    _compile(python, *python.parent.parent.glob("lib/python*/site-packages"))
    progress.end()


def install_quietly(python: Path, lock: Path, log: Path) -> None:
    """The same without output, beside another installation that shows its progress. Raises `InstallFailed`."""
    _pip(python, [*_INSTALL, "--requirement", str(lock)], log, lambda _: None)


def install_project(python: Path, root: Path, log: Path, say: Say) -> None:
    """Install the checkout in editable mode: its own files are used. Raises `InstallFailed`."""
    say("Installing Foretell itself, in place …")
    _pip(python, ["install", "--no-deps", "--no-build-isolation", "--editable", str(root)], log, lambda _: None)
    # Many processes import it at the same time at the first start, and each would compile all of it.
    _compile(python, root / "src")


def _compile(python: Path, *folders: Path) -> None:
    """Compile the modules in these folders, on all processors. pip would do it on one, which takes half of its time."""
    modules = [module for folder in folders for module in _modules_in(folder)]
    processors = os.cpu_count() or 1
    running = []
    for number in range(processors):
        # Not compileall's own `-j`: handing out one file at a time takes a third of all its time.
        compiler = subprocess.Popen(  # noqa: S603 - the Python of .venv
            [str(python), "-m", "compileall", "-q", "-i", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding=sys.getfilesystemencoding(),
            errors="surrogateescape",
        )
        assert compiler.stdin is not None
        with suppress(BrokenPipeError), compiler.stdin as names:
            names.writelines(f"{module}\n" for module in modules[number::processors])
        running.append(compiler)
    for compiler in running:
        # Its status is not used: some packages have files for other Pythons. What fails here fails when it is imported.
        compiler.wait()


def _modules_in(top: Path) -> list[str]:
    modules = []
    for folder, subfolders, names in os.walk(top):
        # Nobody imports the tests of packages, a quarter of their modules.
        subfolders[:] = sorted({*subfolders} - {"tests", "test"})
        modules += [os.path.join(folder, name) for name in sorted(names) if name.endswith(".py")]
    return modules


def _pip(python: Path, arguments: Iterable[str], log: Path, look_at: Callable[[str], None]) -> None:
    environment = {
        "PIP_DEFAULT_TIMEOUT": "30",
        "PIP_RETRIES": "2",
        **os.environ,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_PROGRESS_BAR": "off",
        # The user's own setting would fail in a virtual environment.
        "PIP_USER": "0",
        "PYTHONUNBUFFERED": "1",
    }
    environment.pop("PYTHONHOME", None)
    environment.pop("PYTHONPATH", None)
    with log.open("a", encoding="utf-8") as record:
        child = subprocess.Popen(  # noqa: S603 - pip in our own .venv
            [str(python), "-m", "pip", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        )
        assert child.stdout is not None
        try:
            for line in child.stdout:
                record.write(line)
                look_at(line)
            status = child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
        finally:
            child.stdout.close()
    if status:
        raise InstallFailed(reason=_reason(log.read_text(encoding="utf-8", errors="replace")), log=log)


def _reason(output: str) -> str:
    for pattern, sentence in _REASONS:
        match = re.search(pattern, output)
        if match:
            return sentence.format(**match.groupdict())
    errors = re.findall(r"^ERROR: (.+)$", output, re.MULTILINE)
    return f"pip failed: {errors[0] if errors else (output.strip().splitlines() or ['it said nothing'])[-1]}"


class _Progress:
    """`[12/66] httpx`: one line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self, total: int, say: Say) -> None:
        self._total = total
        self._say = say
        self._count = 0
        self._started = time.monotonic()

    def look_at(self, line: str) -> None:
        match = _COLLECTING.match(line)
        if match:
            self._count = min(self._count + 1, self._total)
            self._show(f"  [{self._count}/{self._total}] {match[1] or match[2]}", always=self._count % _SAY_EVERY == 0)
        elif line.startswith("Installing collected packages"):
            self._show("  unpacking …", always=True)

    def _show(self, text: str, *, always: bool) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()
        elif always:
            self._say(text)

    def end(self) -> None:
        """Print that it is done, and the duration."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
        self._say(f"  installed, after {time.monotonic() - self._started:.0f} s")
