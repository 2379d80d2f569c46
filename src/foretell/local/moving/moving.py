"""The whole move, which can be killed at any moment and repeated."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
from sqlalchemy import Table

from foretell.domain.migrations.run import REVISIONS, migrate
from foretell.domain.predictions.audit import Finding, audit
from foretell.kit.database import Database
from foretell.kit.errors import ForetellError, Misconfigured
from foretell.kit.postgresql_address import PostgresqlAddress, read_postgresql_url
from foretell.local.backups.making import NothingToBackUp, Telling
from foretell.local.backups.parts import DATABASE, Parts, version_of
from foretell.local.backups.restoring import check_stopped
from foretell.local.installation import Installation
from foretell.local.moving.source import Rows, held, opened_for_audit
from foretell.local.moving.target import REFUSALS, Target, tables

#: Rows of one transaction.
_CHUNK = 20_000


class SourceWrong(ForetellError):
    """foretell audit finds {count} things wrong here. Look at them first; --even-if-wrong moves them as they are."""

    code = "source_wrong"


class MoveWrong(ForetellError):
    """The audit finds other things in PostgreSQL ({there}) than here ({here}). Nothing was switched."""

    code = "move_wrong"


class NoTarget(ForetellError):
    """There is no database {database} on {hosts}. Make it first (createdb, or CREATE DATABASE). Nothing was changed."""

    code = "no_target"


class TargetAway(ForetellError):
    """PostgreSQL on {hosts} can't be reached or does not let us in ({reason}). Nothing was changed."""

    code = "target_away"


class MoveFailed(ForetellError):
    """PostgreSQL was lost or refused ({reason}). Run the command again: it goes on where it ended."""

    code = "move_failed"


@dataclass(frozen=True, slots=True)
class Moved:
    """The result of a move."""

    rows: dict[str, int]
    #: How many rows an earlier attempt had already moved.
    earlier: int
    findings: int


def move(
    url: str, installation: Installation, parts: Parts, *, even_if_wrong: bool = False, tell: Telling = lambda *_: None
) -> Moved:
    """Move the database to an empty PostgreSQL database. The caller holds `installation.lock`.

    Raises `StillRunning`, `HasMoved`, `InUse`, `NothingToBackUp`, `SourceWrong`, `NoTarget`, `TargetAway`,
    `WrongEncoding`, `TargetNotEmpty`, `MovedMeanwhile`, `NotWhole`, `MoveWrong`, `MoveFailed`, `Misconfigured`; the
    installation goes on with the database that it had then.
    """
    place = _place(_address(url))
    check_stopped(installation)
    if installation.moved_to(parts.database) not in (None, place):
        installation.check_not_moved(f"sqlite:///{parts.database}")
    if not parts.database.exists():
        raise NothingToBackUp(path=parts.database)
    try:
        return asyncio.run(_move(url, installation, parts.database, even_if_wrong, tell))
    except REFUSALS as error:
        raise MoveFailed(reason=f"{type(error).__name__}: {error}") from error


async def _move(url: str, installation: Installation, file: Path, even_if_wrong: bool, tell: Telling) -> Moved:
    moved_before = installation.moved_to(file) is not None
    if not moved_before and version_of(DATABASE, file) != REVISIONS[-1]:
        database = Database(f"sqlite:///{file}")
        try:
            await migrate(database)
        finally:
            await database.close()
    with held(file) as fingerprint:
        target = await _connect(url)
        try:
            if await target.was_moved(fingerprint):
                _mark_moved(installation, url)
                return Moved({}, 0, 0)
            # The same target, but the moved data is not there any more, or the source has changed since.
            installation.check_not_moved(f"sqlite:///{file}")
            await target.check_encoding()
            await target.check_empty()
            tell("Auditing the embedded database", 0, 0)
            async with opened_for_audit(file) as connection:
                here = await audit(connection)
            if here and not even_if_wrong:
                raise SourceWrong(count=_totals(here).total())
            await target.begin(fingerprint)
            rows, earlier = await _copy(target, file, tell)
            tell("Auditing PostgreSQL", 0, 0)
            there = await _audit(target)
            if _totals(here) != _totals(there):
                raise MoveWrong(here=dict(_totals(here)), there=dict(_totals(there)))
            await target.switch(fingerprint)
            _mark_moved(installation, url)
            return Moved(rows, earlier, len(here))
        finally:
            await target.close()


def _address(url: str) -> PostgresqlAddress:
    """The parsed URL. Raises `Misconfigured`, which names the option."""
    if not url.startswith(("postgresql://", "postgres://")):
        raise Misconfigured("--to must be postgresql://USER:PASSWORD@HOST/DATABASE.")
    try:
        return read_postgresql_url(url)
    except Misconfigured as error:
        raise Misconfigured(error.message.replace("FORETELL_DATABASE_URL", "--to", 1)) from None


def _hosts(address: PostgresqlAddress) -> str:
    return ",".join(f"{host}:{port}" for host, port in address.hosts) or "this machine"


def _place(address: PostgresqlAddress) -> str:
    """The text that is stored for the target of a move."""
    hosts = ",".join(f"{host}:{port}" for host, port in address.hosts)
    return f"{hosts}/{address.database or ''}"


async def _connect(url: str) -> Target:
    """Raises `NoTarget`, `TargetAway`."""
    address = _address(url)
    try:
        return await Target.connect(url)
    except asyncpg.InvalidCatalogNameError as error:
        raise NoTarget(database=address.database or "of that name", hosts=_hosts(address)) from error
    except REFUSALS as error:
        reason = str(error) or type(error).__name__
        raise TargetAway(hosts=_hosts(address), reason=reason.rstrip(".")) from error


async def _copy(target: Target, file: Path, tell: Telling) -> tuple[dict[str, int], int]:
    """Copy every table; returns the number of rows of each, and how many were already there."""
    sources = {table: Rows(file, table) for table in tables()}
    size = sum(source.count for source in sources.values())
    done = earlier = 0
    try:
        for table, source in sources.items():
            last, rows = await target.position(table)
            earlier += rows
            done += rows
            done = await _copy_table(target, table, source, last, done, size, tell)
        for name, statement in await target.indexes():
            tell(f"Making the index {name}", 0, 0)
            await target.make_index(statement)
        for table, source in sources.items():
            tell(f"Counting and analyzing {table.name}", 0, 0)
            await target.complete(table, source.count)
    finally:
        for source in sources.values():
            source.close()
    return {table.name: source.count for table, source in sources.items()}, earlier


async def _copy_table(
    target: Target, table: Table, source: Rows, last: int, done: int, size: int, tell: Telling
) -> int:
    chunk = await asyncio.to_thread(source.after, last, _CHUNK)
    while chunk.count:
        tell(f"Moving {table.name}", done, size)
        # The next rows are read while PostgreSQL stores these.
        following = asyncio.create_task(asyncio.to_thread(source.after, chunk.last, _CHUNK))
        try:
            await target.add(table, last, chunk)
        finally:
            after = await following
        done += chunk.count
        last, chunk = chunk.last, after
    return done


async def _audit(target: Target) -> list[Finding]:
    database = target.database()
    try:
        async with database.snapshot() as connection:
            return await audit(connection, parallel_workers=os.cpu_count() or 1)
    finally:
        await database.close()


def _totals(findings: Sequence[Finding]) -> Counter[str]:
    return Counter({finding.check: finding.total for finding in findings})


def _mark_moved(installation: Installation, url: str) -> None:
    """Record the move, so that the old database is not used by mistake."""
    content = {"to": _place(_address(url)), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    installation.moved_file.write_text(json.dumps(content), encoding="utf-8")
