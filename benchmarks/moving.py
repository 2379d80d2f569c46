"""Backup, restore and move to PostgreSQL of an embedded installation with a million predictions behind it.

    python benchmarks/moving.py
    python benchmarks/moving.py --rows 100000 --postgresql postgresql://postgres@127.0.0.1/postgres

Fills a database of its own (about 1 kB of disk a prediction, and as much again for each of the copies) and drops what
it made. With a PostgreSQL of its own on the same cores, unless one is named.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(ROOT))

from tests.services_database import PrivatePostgresql, postgresql_programs  # noqa: E402

from benchmarks.history import fill_sqlite  # noqa: E402
from benchmarks.surroundings import private_database  # noqa: E402
from foretell.domain.migrations.run import migrate  # noqa: E402
from foretell.kit.database import Database  # noqa: E402
from foretell.local.backups import making, restoring  # noqa: E402
from foretell.local.backups.parts import parts_of  # noqa: E402
from foretell.local.installation import Installation  # noqa: E402
from foretell.local.moving import moving  # noqa: E402


def timed(what: str, work: Callable[[], Any], rows: int) -> None:
    """Do it, and print how long it took."""
    wall, cpu = time.monotonic(), time.process_time()
    work()
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    print(f"{what:<28}{wall:8.1f} s{rows / wall:12,.0f} predictions a second{cpu:8.1f} s of processor", flush=True)


def told() -> Callable[[str, int, int], None]:
    """Says how long each step took, to standard error."""
    last = ["", time.monotonic()]

    def tell(doing: str, *_: int) -> None:
        if doing != last[0]:
            if last[0]:
                print(f"    {time.monotonic() - float(last[1]):6.1f} s  {last[0]}", file=sys.stderr)
            last[:] = [doing, time.monotonic()]

    return tell


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--postgresql", default="", help="a server on which databases may be created")
    arguments = parser.parse_args()
    server = None if arguments.postgresql else PrivatePostgresql(postgresql_programs())
    try:
        if server is not None:
            server.start()
        with tempfile.TemporaryDirectory(prefix="foretell-moving-") as place:
            async with private_database(arguments.postgresql or (server.url if server else "")) as url:
                await measure(Path(place), url, arguments.rows)
    finally:
        if server is not None:
            server.remove()


async def measure(folder: Path, url: str, rows: int) -> None:
    """Fill, back up, restore, move."""
    old, new = Installation(folder / "old"), Installation(folder / "new")
    database = Database(f"sqlite:///{old.data_dir / 'foretell.db'}")
    await migrate(database)
    await database.close()
    fill_sqlite(old.data_dir / "foretell.db", rows)
    for name in ("backup.tar", "backup.tar.gz"):
        file = folder / name
        timed(f"backup, {name}", lambda file=file: making.make(file, parts_of(old, {}), tell=told()), rows)
        print(f"    {file.stat().st_size / 1024**2:,.0f} MiB")
        new.data_dir.mkdir(exist_ok=True)
        timed(f"restore, {name}", lambda file=file: restoring.restore(file, new, parts_of(new, {}), tell=told()), rows)
    await asyncio.to_thread(
        timed, "migrate to PostgreSQL", lambda: moving.move(url, new, parts_of(new, {}), tell=told()), rows
    )


if __name__ == "__main__":
    asyncio.run(main())
