"""The app while a part is away: a clear answer, or none of its business."""

import asyncio
from pathlib import Path
from uuid import UUID

import asyncpg
from tests.integration.app_path.running import ORDER, PATH, running
from tests.ports import free_port
from tests.predictions import assert_books_are_right, statuses_of
from tests.services_database import PrivatePostgresql

from foretell.services.app.settings import AppSettings


async def test_without_the_database_it_says_try_again(private_postgresql: PrivatePostgresql, tmp_path: Path) -> None:
    settings = AppSettings(
        database_url=private_postgresql.url,
        broker_url=f"sqlite:///{tmp_path / 'broker.db'}",
        data_dir=tmp_path,
        port=free_port(),
    )
    async with running(settings) as app:
        _, headers = await app.open_account()
        first = await app.client.post(PATH, json=ORDER, headers=headers | {"Idempotency-Key": "k"})
        assert first.status_code == 202
        private_postgresql.kill()
        responses = await asyncio.gather(*(app.client.post(PATH, json=ORDER, headers=headers) for _ in range(10)))
        for response in responses:
            assert (response.status_code, response.json()["code"]) == (503, "unavailable")
            assert int(response.headers["retry-after"]) >= 1
        assert (await app.client.get("/health/ready")).status_code == 503
        assert (await app.client.get("/health/live")).status_code == 200
        private_postgresql.start()
        again = await app.client.post(PATH, json=ORDER, headers=headers | {"Idempotency-Key": "k"})
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
        # Without the key nobody can know what became of those that were refused.
        assert (await app.client.post(PATH, json=ORDER, headers=headers)).status_code == 202
        await assert_books_are_right(app.database)


async def test_who_is_looked_up_first_hears_too_that_nothing_was_done(fresh_postgresql: str, tmp_path: Path) -> None:
    settings = AppSettings(
        database_url=fresh_postgresql,
        broker_url=f"sqlite:///{tmp_path / 'broker.db'}",
        data_dir=tmp_path,
        port=free_port(),
    )
    async with running(settings) as app:
        _, headers = await app.open_account()
        key = (await app.client.post("/api-keys", json={"name": "nightly"}, headers=headers)).json()["key"]
        owner = await asyncpg.connect(fresh_postgresql)
        try:
            async with owner.transaction():
                await owner.execute("LOCK TABLE api_keys, wallets")
                answers = await asyncio.gather(
                    *(app.client.post(PATH, json=ORDER, headers={"X-API-Key": key}) for _ in range(3)),
                    *(app.client.get("/balance", headers={"X-API-Key": key}) for _ in range(3)),
                )
        finally:
            await owner.close()
        assert {(answer.status_code, answer.json()["outcome"]) for answer in answers} == {(503, "not_done")}
        assert (await app.client.post(PATH, json=ORDER, headers={"X-API-Key": key})).status_code == 202
        assert (await app.client.get("/balance", headers={"X-API-Key": key})).json()["available"] == 99
        await assert_books_are_right(app.database)


async def test_without_the_broker_it_accepts_all_the_same(tmp_path: Path) -> None:
    settings = AppSettings(
        database_url=f"sqlite:///{tmp_path / 'foretell.db'}",
        broker_url="amqp://guest:guest@127.0.0.1:1/",
        data_dir=tmp_path,
        port=free_port(),
    )
    async with running(settings) as app:
        _, headers = await app.open_account()
        responses = await asyncio.gather(*(app.client.post(PATH, json=ORDER, headers=headers) for _ in range(3)))
        assert [response.status_code for response in responses] == [202] * 3
        assert (await app.client.get("/health/ready")).status_code == 200
        health = await app.client.get("/health")
        assert (health.status_code, list(health.json()["failing"])) == (503, ["broker"])
        ids = [response.json()["id"] for response in responses]
        assert await statuses_of(app.database, [UUID(each) for each in ids]) == ["queued"] * 3
        await assert_books_are_right(app.database)
