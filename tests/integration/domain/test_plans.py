"""Sweeps keep the index of the few that are queued, however often they run and however many have ended."""

from sqlalchemy import text

from foretell.domain.migrations.run import migrate
from foretell.domain.predictions import sweeps
from foretell.kit.clock import now
from foretell.kit.database import Database


async def test_a_sweep_is_planned_for_its_parameters_each_time(fresh_postgresql: str) -> None:
    # By its fifth run, PostgreSQL would take a plan that fits any status: one that reads every prediction.
    database = Database(fresh_postgresql, pool_size=1)
    try:
        await migrate(database)
        for _ in range(10):
            async with database.snapshot() as connection:
                await sweeps.expired(connection, now(), limit=10)
        async with database.snapshot() as connection:
            query = """
                SELECT generic_plans, custom_plans FROM pg_prepared_statements
                WHERE statement LIKE 'SELECT predictions.id%'
            """
            [plans] = (await connection.execute(text(query))).all()
        assert tuple(plans) == (0, 10)
    finally:
        await database.close()
