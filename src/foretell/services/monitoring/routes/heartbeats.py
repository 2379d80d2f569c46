"""`POST /heartbeats`: stores the states of instances, and marks silent ones as missing."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from foretell.contracts.monitoring import SILENT_AFTER_S, Heartbeat, decode_heartbeat
from foretell.contracts.openapi import json_answer, json_body, problem_answers, reference, struct_schemas
from foretell.kit import routing
from foretell.kit.asgi import Body
from foretell.kit.clock import now
from foretell.kit.misfits import misfit_of
from foretell.kit.pauses import set_within
from foretell.kit.problems import InvalidRequest, MalformedBody, pointer
from foretell.kit.routing import Answer, AsgiRequest, Request, Route
from foretell.services.monitoring.intake.moments import MAX_AHEAD_S
from foretell.services.monitoring.intake.reading import UNREADABLE
from foretell.services.monitoring.intake.text import Names
from foretell.services.monitoring.parts import Part, Surroundings
from foretell.services.monitoring.storage import instances, observations, snapshots
from foretell.services.monitoring.storage.database import MonitoringDatabase

_LOOK_EVERY_S = 1.0
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
#: A heartbeat that seems older than this was not delayed: the sender's clock is behind.
_LONGEST_WAY_S = 3600
_LATEST = datetime(2999, 12, 31, tzinfo=UTC)
_LARGEST = 2**53
_names = Names()


class Heartbeats:
    """The route, and the detection of missing instances."""

    def __init__(self, database: MonitoringDatabase, *, addresses_believed: bool) -> None:
        """Without `addresses_believed`, the host of an instance is the caller's address: Prometheus connects to it."""
        self._database = database
        self._addresses_believed = addresses_believed

    async def take(self, request: Request) -> Answer:
        """Store a heartbeat."""
        moment = now()
        heartbeat = by_our_clock(read_heartbeat(await request.body()), moment)
        if not self._addresses_believed and heartbeat.address:
            heartbeat = msgspec.structs.replace(heartbeat, address=_at_peer(heartbeat.address, request))
        async with self._database.transaction() as connection:
            instance_id = await instances.record(connection, heartbeat, moment)
            if heartbeat.metrics:
                await snapshots.record(connection, instance_id, min(heartbeat.at, moment), heartbeat.metrics)
            await observations.record(connection, heartbeat.observations)
        return routing.json_answer({"status": "recorded"})

    async def look(self, stopping: asyncio.Event) -> None:
        """Mark missing instances every second."""
        # Wait first: while this service was down, no heartbeat could arrive.
        pause_s = SILENT_AFTER_S
        while not await set_within(stopping, pause_s):
            pause_s = _LOOK_EVERY_S
            async with self._database.snapshot() as connection:
                silent = await instances.any_silent(connection, now())
            if silent:
                async with self._database.transaction() as connection:
                    await instances.mark_missing(connection, now())


def _at_peer(address: str, request: Request) -> str:
    """The port of `address` on the caller's host; empty if that is unknown."""
    peer = request.peer if isinstance(request, AsgiRequest) else ""
    port = address.rpartition(":")[2]
    if not peer or not port.isdigit():
        return ""
    return f"[{peer}]:{port}" if ":" in peer else f"{peer}:{port}"


def read_heartbeat(body: Body) -> Heartbeat:
    """The heartbeat in a body. Raises `InvalidRequest` with all errors, and `MalformedBody`."""
    try:
        heartbeat = decode_heartbeat(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest([misfit_of(error).problem]) from None
    except UNREADABLE:
        raise MalformedBody from None
    errors = [{"detail": detail, "pointer": pointer(*path)} for path, detail in _faults(heartbeat)]
    if errors:
        raise InvalidRequest(errors)
    return heartbeat


def by_our_clock(heartbeat: Heartbeat, moment: datetime) -> Heartbeat:
    """`heartbeat`, which arrived at `moment`, with our times if the sender's clock is wrong, and marked as unhealthy.

    It is not refused, because then the instance would count as missing. `started_at` stays, as it identifies the
    instance.
    """
    ahead_s = (heartbeat.at - moment).total_seconds()
    if -_LONGEST_WAY_S <= ahead_s <= MAX_AHEAD_S:
        return heartbeat
    direction = "ahead of" if ahead_s > 0 else "behind"
    failing = heartbeat.health.get("failing")
    clock = {"clock": f"{abs(ahead_s):.0f} s {direction} the monitoring service's"}
    return msgspec.structs.replace(
        heartbeat,
        at=moment,
        health={
            **heartbeat.health,
            "status": "unhealthy",
            "failing": {**(failing if isinstance(failing, dict) else {}), **clock},
        },
        observations=[
            msgspec.structs.replace(seen, since=moment - max(seen.until - seen.since, timedelta()), until=moment)
            for seen in heartbeat.observations
        ],
    )


def _faults(heartbeat: Heartbeat) -> list[tuple[tuple[str | int, ...], str]]:
    """The errors with their paths: values that can't be stored or would make reports wrong."""
    faults: list[tuple[tuple[str | int, ...], str]] = []

    def check_name(value: str, *path: str | int) -> None:
        fault = _names.fault(value)
        if fault is not None:
            faults.append((path, fault))

    def check_number(value: float, *path: str | int) -> None:
        if not 0 <= value <= _LARGEST:
            faults.append((path, f"must be from 0 to {_LARGEST}"))

    def check_moment(value: datetime, *path: str | int) -> None:
        if value.tzinfo is None:
            faults.append((path, "must have a zone"))
        elif not _EARLIEST <= value <= _LATEST:
            faults.append((path, "must be from 1970 to 2999"))

    for name in ("service", "instance", "version", "hostname"):
        check_name(getattr(heartbeat, name), name)
    if heartbeat.address:
        check_name(heartbeat.address, "address")
    for name in ("memory_bytes", "cpu_s", "logs_dropped"):
        check_number(getattr(heartbeat, name), name)
    if not 0 <= heartbeat.pid < 2**31:
        faults.append((("pid",), "must be a process id"))
    for name in ("started_at", "at"):
        check_moment(getattr(heartbeat, name), name)
    for index, seen in enumerate(heartbeat.observations):
        path = ("observations", index)
        check_name(seen.model, *path, "model")
        check_name(seen.version, *path, "version")
        check_moment(seen.since, *path, "since")
        check_moment(seen.until, *path, "until")
        if not 0 <= seen.rows < 2**31:
            faults.append(((*path, "rows"), "must be a number of rows"))
    return faults


def _paths() -> dict[str, Any]:
    beat = {
        "service": "ml_worker",
        "instance": "worker-1",
        "version": "0.1.0",
        "started_at": "2026-01-05T09:00:00Z",
        "at": "2026-01-05T09:30:00Z",
        "health": {"status": "healthy"},
        "pid": 4711,
        "hostname": "machine-1",
        "address": "127.0.0.1:24001",
        "memory_bytes": 120_000_000,
        "cpu_s": 12.5,
        "metrics": [{"name": "foretell_worker_busy", "kind": "gauge", "series": [[{}, 1.0]]}],
    }
    answer = {"type": "object", "properties": {"status": {"const": "recorded"}}, "required": ["status"]}
    operation = {
        "tags": ["instances"],
        "operationId": "take_heartbeat",
        "summary": "Say how an instance is",
        "description": f"Whoever says nothing for {SILENT_AFTER_S:g} s is missing; after a `goodbye` it is stopped.",
        "requestBody": json_body(reference("Heartbeat"), {"A heartbeat": beat}),
        "responses": {
            "200": json_answer("Recorded", answer, {"status": "recorded"}),
            **problem_answers(413, 422, 503),
        },
    }
    return {"/heartbeats": {"post": operation}}


def part(surroundings: Surroundings) -> Part:
    """Heartbeats, as a part of the service."""
    token = surroundings.settings.monitoring_token.get_secret_value()
    heartbeats = Heartbeats(surroundings.database, addresses_believed=bool(token))
    return Part(
        routes=[Route("POST", "/heartbeats", heartbeats.take)],
        run=heartbeats.look,
        paths=_paths,
        schemas=lambda: struct_schemas([Heartbeat]),
        quiet=["/heartbeats"],
    )
