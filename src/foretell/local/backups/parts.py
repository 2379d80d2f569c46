"""The parts of an installation on the embedded database, and their places."""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from foretell.broker.sqlite_file import SCHEMA_VERSION as BROKER_VERSION
from foretell.domain.migrations.run import REVISIONS as PRODUCT_REVISIONS
from foretell.inference.live import operators_folder
from foretell.kit.errors import ForetellError
from foretell.kit.sqlite_address import sqlite_path
from foretell.local.installation import Installation, settings_of
from foretell.services.bot.storage.database import VERSION as BOT_VERSION
from foretell.services.monitoring.migrations.run import REVISIONS as MONITORING_REVISIONS

DATABASE, BROKER, MONITORING, BOT = "foretell.db", "broker.db", "monitoring.db", "bot.db"
SECRETS = ("secret_key", "bot_secret")
MODELS = "models"
#: Other files in the folder of an installation, which a backup leaves out: of one run, of one process, or logs.
LEFT_OUT = ("run", "logs", "broker.db-receivers")

_ELSEWHERE = ("FORETELL_MODELS_DIR", "FORETELL_MONITORING_DATABASE_URL")


class NotEmbedded(ForetellError):
    """The database of this installation is PostgreSQL, which has tools of its own for this: see docs/backup.md."""

    code = "not_embedded"


class OtherSettings(ForetellError):
    """What runs here was started with another {name} than is set now. Set it as it was at the start."""

    code = "other_settings"


@dataclass(frozen=True, slots=True)
class Parts:
    """Files and folders of one installation. A database on a server is None."""

    database: Path
    broker: Path | None
    monitoring: Path | None
    bot: Path
    secrets: tuple[Path, ...]
    models: Path

    def databases(self) -> dict[str, Path]:
        """The SQLite files by their name in an archive, in the order in which they are copied.

        The product's is the last, so that it contains everything that the others refer to: a prediction is committed
        before its task is sent and before the bot gets its id. A settled result that is still in the copy of the
        broker is settled only once. A task that is missing in the copy of the broker is published again, after a delay.
        """
        named = {MONITORING: self.monitoring, BOT: self.bot, BROKER: self.broker, DATABASE: self.database}
        return {name: path for name, path in named.items() if path is not None}


def parts_of(installation: Installation, environment: Mapping[str, str] = os.environ) -> Parts:
    """The places of all parts: from the environment, from the running engine, or else in the data folder.

    Raises `NotEmbedded`, `OtherSettings`.
    """
    folder, record = installation.data_dir, installation.read()
    if record is not None and record.settings is not None:
        given = settings_of(environment)
        for name in _ELSEWHERE:
            if record.settings.get(name) != given.get(name):
                raise OtherSettings(name=name)
    database = environment.get("FORETELL_DATABASE_URL") or (record.database_url if record else "")
    broker = environment.get("FORETELL_BROKER_URL") or (record.broker_url if record else "")
    monitoring = environment.get("FORETELL_MONITORING_DATABASE_URL", "")
    product = _file_of(database, folder / DATABASE)
    if product is None:
        raise NotEmbedded
    models = environment.get("FORETELL_MODELS_DIR")
    return Parts(
        database=product,
        broker=_file_of(broker, folder / BROKER),
        monitoring=_file_of(monitoring, folder / MONITORING),
        bot=folder / BOT,
        secrets=tuple(folder / name for name in SECRETS),
        models=Path(os.path.abspath(operators_folder(Path(models) if models else None, folder))),
    )


def _file_of(url: str, usual: Path) -> Path | None:
    if not url:
        return usual
    return Path(os.path.abspath(sqlite_path(url))) if url.startswith("sqlite:") else None


#: Versions of each database that this release can use or migrate.
_KNOWN = {
    DATABASE: PRODUCT_REVISIONS,
    MONITORING: MONITORING_REVISIONS,
    BROKER: (str(BROKER_VERSION),),
    BOT: tuple(str(version) for version in range(1, BOT_VERSION + 1)),
}


def version_of(name: str, file: Path) -> str:
    """The version of the tables in a SQLite file; empty for one without tables. Raises `sqlite3.Error`."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        if name in (DATABASE, MONITORING):
            there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if there else None
            return str(row[0]) if row else ""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        return str(version) if version else ""


def is_known(name: str, version: str) -> bool:
    """Whether this release can use or migrate a database of that version."""
    return not version or version in _KNOWN[name]
