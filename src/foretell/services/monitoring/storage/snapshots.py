"""Snapshots: all metrics of an instance at one time."""

import zlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.monitoring import Family, MetricKind, Series
from foretell.services.monitoring.storage.instances import LIVE, Instance, instance_of
from foretell.services.monitoring.storage.tables import instances, snapshots

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Family]).decode
_decode_series = msgspec.msgpack.Decoder(list[Series]).decode


class _Unread(msgspec.Struct):
    """A family with encoded series: decoding them takes most of the time."""

    name: str
    kind: MetricKind
    series: msgspec.Raw
    bounds: list[float] = []


_decode_unread = msgspec.msgpack.Decoder(list[_Unread]).decode


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The metrics of one instance at one time."""

    instance: Instance
    at: datetime
    families: list[Family]


async def record(connection: AsyncConnection, instance_id: int, at: datetime, families: list[Family]) -> None:
    """Store the metrics of an instance at `at`. A second call for the same time changes nothing."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    # The names repeat, so that compression leaves a tenth.
    body = zlib.compress(_encode(families), 1)
    statement = insert(snapshots).values(instance_id=instance_id, at=at, body=body).on_conflict_do_nothing()
    await connection.execute(statement)


def families_of(body: bytes, names: Collection[str] | None = None) -> list[Family]:
    """The families in the `body` of a row; with `names`, only those."""
    content = zlib.decompress(body)
    if names is None:
        return _decode(content)
    return [
        Family(each.name, each.kind, _decode_series(each.series), each.bounds)
        for each in _decode_unread(content)
        if each.name in names
    ]


async def latest(connection: AsyncConnection, *, live_only: bool = True) -> list[Snapshot]:
    """The newest snapshot of each instance that has one."""
    newest = (
        select(func.max(snapshots.c.at))
        .where(snapshots.c.instance_id == instances.c.id)
        .correlate(instances)
        .scalar_subquery()
    )
    query = (
        select(instances, snapshots.c.at.label("taken_at"), snapshots.c.body)
        .join(snapshots, (snapshots.c.instance_id == instances.c.id) & (snapshots.c.at == newest))
        .order_by(instances.c.service, instances.c.instance, instances.c.started_at)
    )
    if live_only:
        query = query.where(instances.c.state.in_(LIVE))
    rows = (await connection.execute(query)).mappings()
    return [Snapshot(instance_of(row), row["taken_at"], families_of(row["body"])) for row in rows]
