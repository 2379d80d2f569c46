"""The last drift findings by model version: computed, stored, and read for `GET /reports/drift`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.reports.drift import (
    FieldSummary,
    NotCompared,
    ReferenceAbout,
    VersionFinding,
    WindowFinding,
)
from foretell.inference.reference import Reference
from foretell.services.monitoring.drift.judging import judge, worst
from foretell.services.monitoring.drift.tallies import Tally
from foretell.services.monitoring.storage.tables import drift_findings

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(VersionFinding).decode


def without_reference(
    model: str, version: str, code: Literal["missing", "broken"], reason: str, now: datetime
) -> VersionFinding:
    """The finding for a version that can't be compared."""
    return VersionFinding(
        model=model, version=version, computed_at=now, status="no_reference", reason=reason, reason_code=code
    )


def find(
    model: str,
    version: str,
    reference: Reference,
    tally: Tally,
    windows_s: Sequence[float],
    now: datetime,
    not_compared: Sequence[NotCompared] = (),
) -> VersionFinding:
    """Compare the counts of a version in each window with its reference, which does not cover `not_compared`.

    The status of a field, and of the version, is that of the longest window with enough rows. Shorter windows detect a
    fault earlier, but also react to normal changes, for example between morning and evening.
    """
    windows = [_find_in_window(reference, tally, window_s, now) for window_s in sorted(windows_s)]
    telling = next((each for each in reversed(windows) if each.status != "not_enough_data"), windows[-1])
    return VersionFinding(
        model=model,
        version=version,
        computed_at=now,
        status=telling.status,
        reference=ReferenceAbout(reference.rows, reference.sha256),
        findings=[
            FieldSummary(
                each.name, each.part, each.status, each.drifted, each.reasons, telling.window_s, each.psi, each.p_value
            )
            for each in telling.fields
        ],
        windows=windows,
        not_compared=list(not_compared),
    )


def _find_in_window(reference: Reference, tally: Tally, window_s: float, now: datetime) -> WindowFinding:
    total = tally.total(window_s, now)
    known = {"feature": reference.features, "output": reference.outputs}
    count = len(total.fields)
    fields = [
        judge(name, part, known[part][name], seen, count, total.days) for (part, name), seen in total.fields.items()
    ]
    return WindowFinding(
        window_s=window_s,
        status=worst([each.status for each in fields]),
        rows=total.rows,
        passed=total.passed,
        since=total.since,
        until=total.until,
        fields=fields,
    )


async def keep(connection: AsyncConnection, found: Sequence[VersionFinding]) -> None:
    """Store these findings in place of the earlier ones."""
    await connection.execute(delete(drift_findings))
    if found:
        await connection.execute(
            insert(drift_findings),
            [
                {
                    "model": each.model,
                    "version": each.version,
                    "computed_at": each.computed_at,
                    "body": _encode(each).decode(),
                }
                for each in found
            ],
        )


async def latest(
    connection: AsyncConnection, *, model: str | None = None, version: str | None = None
) -> list[VersionFinding]:
    """The last findings, by model and version."""
    query = select(drift_findings.c.body).order_by(drift_findings.c.model, drift_findings.c.version)
    if model is not None:
        query = query.where(drift_findings.c.model == model)
    if version is not None:
        query = query.where(drift_findings.c.version == version)
    return [_decode(body) for body in await connection.scalars(query)]
