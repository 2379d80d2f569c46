"""The files of an installation, and the record of the engine that runs there.

- `data/`: the embedded database and broker, the secret key, the secret of the bot
- `data/logs/`: one log per process, rotated
- `data/run/`: only while it runs: engine.json, the supervisor's configuration and socket
"""

import fcntl
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from foretell.kit.errors import ForetellError, Misconfigured
from foretell.kit.private_folder import keep_private

_FORMAT = 1
#: `sockaddr_un` has 104 bytes on macOS and 108 on Linux, and supervisord first binds to `SOCKET.PID`.
_LONGEST_SOCKET_PATH = 90


class FolderUnusable(ForetellError):
    """The folder {folder} can't be used ({reason}). Set FORETELL_DATA_DIR to a folder that you may write to."""

    code = "folder_unusable"


class HasMoved(ForetellError):
    """This installation moved to {place}: set FORETELL_DATABASE_URL. To go on with the old database, delete {file}."""

    code = "has_moved"


@dataclass(frozen=True, slots=True)
class Program:
    """One process that the engine runs."""

    name: str
    service: str
    #: Unique among all running processes, of this engine and of others.
    instance: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """The running engine. Stored in a file that only its owner can read, because URLs may contain passwords."""

    supervisor_pid: int
    socket: str
    database_url: str
    broker_url: str
    environment: str
    programs: list[Program] = field(default_factory=list)
    #: Hashes of the settings at its start, by name; None if an earlier release started it.
    settings: dict[str, str] | None = None

    def differing(self, environment: Mapping[str, str]) -> list[str]:
        """Names of the settings in `environment` that differ from those at its start, in order."""
        if self.settings is None:
            return []
        given = settings_of(environment)
        return sorted(name for name, value in given.items() if self.settings.get(name) != value)


#: Settings that only locate the installation, or apply to one process: a difference in them is ignored.
_NO_CHANGE = ("FORETELL_DATA_DIR", "FORETELL_PORT", "FORETELL_INSTANCE")


def settings_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings of the product in `environment`, by name, hashed: some are secrets."""
    return {
        name: hashlib.sha256(os.fsencode(value)).hexdigest()
        for name, value in environment.items()
        if name.startswith(("FORETELL_", "TELEGRAM_")) and name not in _NO_CHANGE
    }


#: Every installation has one of these in its data folder, with any database.
_FILES_OF_ANY = ("bot_secret", "secret_key", "foretell.db", "run", "moved.json", "restore.json")
_VENV = Path(sys.prefix) if sys.prefix != sys.base_prefix else None


def usual_data_dir(venv: Path | None = _VENV) -> Path:
    """The default data folder: `./data`, unless only the folder of the virtual environment has one.

    An environment in FOLDER/.venv belongs to the installation in FOLDER/data: its commands find it from any
    folder that is not an installation itself.
    """
    here = Path("data")
    if venv is None or _is_data_dir(here):
        return here
    own = venv.parent / "data"
    return own if _is_data_dir(own) else here


def _is_data_dir(folder: Path) -> bool:
    return any((folder / name).exists() for name in _FILES_OF_ANY)


class Installation:
    """The files of one installation."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = Path(os.path.abspath(data_dir))
        self.logs_dir = self.data_dir / "logs"
        self.run_dir = self.data_dir / "run"
        self.record_file = self.run_dir / "engine.json"
        self.configuration_file = self.run_dir / "supervisor.conf"
        self.pid_file = self.run_dir / "supervisor.pid"
        #: Exists while a restore has unfinished renames (backups/restoring.py).
        self.restore_plan = self.data_dir / "restore.json"
        #: Exists after the embedded database was moved to a server (moving/).
        self.moved_file = self.data_dir / "moved.json"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Installation":
        """The installation in `FORETELL_DATA_DIR`, or in `usual_data_dir`."""
        return cls(Path(environment.get("FORETELL_DATA_DIR") or usual_data_dir()))

    @property
    def socket(self) -> Path:
        """The supervisor's socket; in the temporary folder if our path is too long for a socket."""
        inside = self.run_dir / "supervisor.sock"
        if len(os.fsencode(inside)) <= _LONGEST_SOCKET_PATH:
            return inside
        return self._short_run_dir / "supervisor.sock"

    @property
    def _short_run_dir(self) -> Path:
        name = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"foretell-{os.getuid()}-{name}"
        if len(os.fsencode(folder)) + len("/supervisor.sock") > _LONGEST_SOCKET_PATH:
            folder = Path("/tmp") / folder.name  # noqa: S108 - made with 0700, and its owner is checked
        return folder

    def prepare(self) -> None:
        """Create the folders. Raises `FolderUnusable`."""
        try:
            keep_private(self.data_dir)
            self.logs_dir.mkdir(mode=0o700, exist_ok=True)
            self.run_dir.mkdir(mode=0o700, exist_ok=True)
            self.run_dir.chmod(0o700)
            if self.socket.parent != self.run_dir:
                _make_private(self.socket.parent)
        except OSError as error:
            raise FolderUnusable(folder=self.data_dir, reason=error.strerror or str(error)) from error

    def bot_secret(self) -> str:
        """The shared secret of app, dispatcher and bot; created at the first start. Raises `FolderUnusable`."""
        # Imported here, because its imports would make `foretell status` slow.
        from foretell.contracts.bot_secret import bot_secret_key, new_bot_secret

        file = self.data_dir / "bot_secret"
        try:
            if not file.exists():
                self._write_private(file, new_bot_secret() + "\n")
            secret = file.read_text(encoding="utf-8").strip()
            bot_secret_key(secret)
        except (OSError, UnicodeDecodeError) as error:
            raise FolderUnusable(folder=file, reason=str(error)) from error
        except ValueError as error:
            raise Misconfigured(f"{file} holds no secret for the bot. Delete it: a new one is made.") from error
        return secret

    def write(self, record: EngineRecord) -> None:
        """Write the record atomically."""
        self._write_private(self.record_file, json.dumps({"format": _FORMAT, **asdict(record)}, indent=1))

    def write_configuration(self, text: str) -> None:
        """Write the supervisor's configuration."""
        self._write_private(self.configuration_file, text)

    def _write_private(self, file: Path, text: str) -> None:
        draft = file.with_suffix(".new")
        try:
            draft.unlink(missing_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
                stream.write(text)
            draft.replace(file)
        except OSError as error:
            raise FolderUnusable(folder=file.parent, reason=error.strerror or str(error)) from error

    def read(self) -> EngineRecord | None:
        """The record, or None if there is no readable one."""
        try:
            content = json.loads(self.record_file.read_text(encoding="utf-8", errors="surrogateescape"))
            if content.pop("format") != _FORMAT:
                return None
            content["programs"] = [Program(**program) for program in content["programs"]]
            return EngineRecord(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # Absent, incomplete after a power failure, or from another release: search the processes instead.
            return None

    def moved_to(self, database: Path) -> str | None:
        """The target that the embedded database `database` was moved to, HOST:PORT/DATABASE, or None."""
        if database != self.data_dir / "foretell.db" or not self.moved_file.exists():
            return None
        try:
            return str(json.loads(self.moved_file.read_text(encoding="utf-8"))["to"])
        except (ValueError, KeyError, TypeError):
            return "another database"

    def check_not_moved(self, database_url: str) -> None:
        """Raises `HasMoved` if `database_url` is the embedded database that was moved."""
        scheme, _, path = database_url.partition("sqlite:///")
        place = None if scheme or not path else self.moved_to(Path(path))
        if place is not None:
            raise HasMoved(place=place, file=self.moved_file)

    def remove_run_files(self) -> None:
        """Delete all files of the run."""
        shutil.rmtree(self.run_dir, ignore_errors=True)
        if self.socket.parent != self.run_dir:
            shutil.rmtree(self.socket.parent, ignore_errors=True)

    @contextmanager
    def lock(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Allow only one start, stop or scaling at a time. Calls `waiting` once if it has to wait for another."""
        said = False
        while True:
            self.prepare()
            file = self.run_dir / "lock"
            try:
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # A stop removed the folder just now.
            except OSError as error:
                raise FolderUnusable(folder=self.run_dir, reason=error.strerror or str(error)) from error
            try:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not said:
                        said = True
                        waiting()
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                # The previous holder may have been a stop, which removes the file; then our lock is on a deleted file.
                if _is_the_file(descriptor, file):
                    yield
                    return
            finally:
                os.close(descriptor)


def _is_the_file(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(1, f"{folder} exists and is not ours alone")
