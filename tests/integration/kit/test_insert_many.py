"""Many rows are inserted by one statement."""

from typing import Any

import pytest
from sqlalchemy import event, select

from foretell.domain.notifications.tables import deliveries
from foretell.kit.clock import now, uuid7
from foretell.kit.database import Database, insert_many

NAMES = (
    "endpoint_id",
    "event_id",
    "sequence",
    "type",
    "attempt",
    "outcome",
    "status_code",
    "error",
    "duration_ms",
    "at",
)


@pytest.mark.parametrize("count", [1, 300])
async def test_rows_are_stored_as_given_by_one_statement(database: Database, count: int) -> None:
    moment = now()
    rows = [
        (
            uuid7(),
            uuid7(),
            2**40 + n,
            "prediction.finished",
            1,
            "failed",
            *((None, "reset") if n % 2 else (503, None)),
            n,
            moment,
        )
        for n in range(count)
    ]
    statements: list[tuple[str, bool]] = []

    def note(_1: Any, _2: Any, statement: str, _3: Any, _4: Any, executemany: bool) -> None:
        statements.append((statement, executemany))

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    async with database.transaction() as connection:
        await insert_many(connection, deliveries, rows, NAMES)
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)
    async with database.snapshot() as connection:
        query = select(*(deliveries.c[name] for name in NAMES)).order_by(deliveries.c.id)
        stored = [tuple(row) for row in await connection.execute(query)]
    assert stored == rows
    ((statement, executemany),) = [each for each in statements if each[0].startswith("INSERT")]
    if database.dialect == "postgresql":
        # With `executemany`, the server runs the statement once for each row.
        assert not executemany
        assert "unnest" in statement
