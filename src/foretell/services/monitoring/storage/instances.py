"""The instances and their states, from their last heartbeats."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, RowMapping, Select, exists, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.monitoring import SILENT_AFTER_S, Heartbeat
from foretell.contracts.reports.condition import InstanceState
from foretell.services.monitoring.storage.tables import instances

HEALTHY, UNHEALTHY, MISSING, STOPPED = "healthy", "unhealthy", "missing", "stopped"
#: The states of running instances.
LIVE = (HEALTHY, UNHEALTHY)

_encode_json = msgspec.json.Encoder(enc_hook=str).encode


@dataclass(frozen=True, slots=True)
class Instance:
    """One process, from its start to its end."""

    id: int
    service: str
    instance: str
    version: str
    started_at: datetime
    hostname: str
    pid: int
    #: Its HTTP address, `HOST:PORT`, or empty.
    address: str
    #: healthy, unhealthy, missing or stopped, and since when.
    state: str
    state_since: datetime
    last_seen_at: datetime
    #: Its last /health answer.
    health: dict[str, Any]
    memory_bytes: int
    #: Processor time since its start.
    cpu_s: float
    logs_dropped: int

    @property
    def live(self) -> bool:
        """Whether it is running, as far as is known."""
        return self.state in LIVE


def known_state(state: str) -> InstanceState:
    """A state from the table, as reports have it."""
    known: dict[str, InstanceState] = {
        HEALTHY: "healthy",
        UNHEALTHY: "unhealthy",
        MISSING: "missing",
        STOPPED: "stopped",
    }
    return known[state]


def instance_of(row: RowMapping) -> Instance:
    """The instance in a row of the table."""
    values = {column.name: row[column] for column in instances.c}
    return Instance(**values | {"health": msgspec.json.decode(values["health"])})


async def list_instances(
    connection: AsyncConnection,
    *,
    service: str | None = None,
    seen_since: datetime | None = None,
    live_only: bool = False,
) -> list[Instance]:
    """The instances, by service, name and start."""
    query: Select[Any] = select(instances).order_by(instances.c.service, instances.c.instance, instances.c.started_at)
    if service is not None:
        query = query.where(instances.c.service == service)
    if seen_since is not None:
        query = query.where(instances.c.last_seen_at >= seen_since)
    if live_only:
        query = query.where(instances.c.state.in_(LIVE))
    return [instance_of(row) for row in (await connection.execute(query)).mappings()]


async def record(connection: AsyncConnection, heartbeat: Heartbeat, now: datetime) -> int:
    """Store a heartbeat that arrived at `now`; returns the id of the instance.

    `state_since` changes only with the state. Earlier processes of its name are missing from then on. A late heartbeat
    does not change the state of a stopped instance.
    """
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    state = _state_of(heartbeat)
    values = {
        "service": heartbeat.service,
        "instance": heartbeat.instance,
        "version": heartbeat.version,
        "started_at": heartbeat.started_at,
        "hostname": heartbeat.hostname,
        "pid": heartbeat.pid,
        "address": heartbeat.address,
        "state": state,
        "state_since": now,
        "last_seen_at": now,
        "health": _encode_json(heartbeat.health).decode(),
        "memory_bytes": heartbeat.memory_bytes,
        "cpu_s": heartbeat.cpu_s,
        "logs_dropped": heartbeat.logs_dropped,
    }
    identity = ("service", "instance", "started_at")
    known = (
        await connection.execute(
            select(instances.c.id, instances.c.state, instances.c.state_since).where(
                *(instances.c[name] == values[name] for name in identity)
            )
        )
    ).one_or_none()
    if known is not None:
        if known.state == STOPPED and state != STOPPED:
            return int(known.id)
        if known.state == state:
            values["state_since"] = known.state_since
        await connection.execute(update(instances).where(instances.c.id == known.id).values(values))
        return int(known.id)
    statement = insert(instances).values(values).on_conflict_do_nothing().returning(instances.c.id)
    created = (await connection.execute(statement)).scalar_one_or_none()
    if created is None:
        return await record(connection, heartbeat, now)
    # Two processes never have one name at the same time: an earlier one has ended without a farewell.
    earlier = (*(instances.c[name] == values[name] for name in identity[:2]), instances.c.id != created)
    await connection.execute(
        update(instances)
        .where(*earlier, instances.c.started_at < heartbeat.started_at, instances.c.state.in_(LIVE))
        .values(state=MISSING, state_since=now)
    )
    return int(created)


def _state_of(heartbeat: Heartbeat) -> str:
    if heartbeat.goodbye:
        return STOPPED
    return HEALTHY if heartbeat.health.get("status") == "healthy" else UNHEALTHY


async def any_silent(connection: AsyncConnection, now: datetime) -> bool:
    """Whether `mark_missing` would change an instance."""
    return bool(await connection.scalar(select(exists().where(*_silent(now)))))


async def mark_missing(connection: AsyncConnection, now: datetime) -> int:
    """Mark instances without a heartbeat for `SILENT_AFTER_S` as missing; returns their number."""
    result = await connection.execute(update(instances).where(*_silent(now)).values(state=MISSING, state_since=now))
    return int(result.rowcount)


async def mark_stopped(connection: AsyncConnection, instance: str, now: datetime) -> None:
    """Mark `instance` as stopped: the monitoring service can't receive its own goodbye."""
    mine = (instances.c.instance == instance, instances.c.state.in_(LIVE))
    await connection.execute(update(instances).where(*mine).values(state=STOPPED, state_since=now))


def _silent(now: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return instances.c.state.in_(LIVE), instances.c.last_seen_at < now - timedelta(seconds=SILENT_AFTER_S)
