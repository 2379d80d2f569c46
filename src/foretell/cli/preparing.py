"""One-time steps before services start: `foretell prepare` for the tables, `write-secrets` in Docker Compose."""

import asyncio
import os
import time
from pathlib import Path

from foretell.cli.operating import database_pooler, quiet_logs
from foretell.cli.output import remark, say
from foretell.domain.migrations.run import REVISIONS, migrate
from foretell.kit.database import Database
from foretell.kit.errors import Unavailable
from foretell.kit.private_folder import keep_private
from foretell.local.installation import Installation

_RETRY_S = 1.0


def prepare(wait_s: float) -> None:
    """Migrate the database to this release; waits `wait_s` seconds for an unreachable one. Raises `Unavailable`."""
    url = os.environ.get("FORETELL_DATABASE_URL", "")
    if not url:
        installation = Installation.from_environment()
        keep_private(installation.data_dir)
        url = f"sqlite:///{installation.data_dir / 'foretell.db'}"
    quiet_logs()
    asyncio.run(_prepare(url, wait_s))
    say(f"The database has the tables of this release (revision {REVISIONS[-1]}).")


def write_secrets(folder: Path) -> None:
    """Generate missing secrets, and print their names, never their values."""
    from foretell.local.container_secrets import write_secrets

    made = write_secrets(folder)
    say(f"Made: {', '.join(made)}." if made else "All secrets are there.")


async def _prepare(url: str, wait_s: float) -> None:
    database = Database(url, application="foretell prepare", pool_size=1, pooler=database_pooler())
    deadline = time.monotonic() + wait_s
    said = False
    try:
        while True:
            try:
                await migrate(database)
            except Unavailable as error:
                if time.monotonic() >= deadline:
                    raise
                if not said:
                    remark(f"{error.message} Waiting for it, up to {wait_s:g} s …")
                    said = True
                await asyncio.sleep(_RETRY_S)
            else:
                return
    finally:
        await database.close()
