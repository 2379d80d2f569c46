"""The app beside PostgreSQL and RabbitMQ, and beside the embedded pair."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.app_path.running import Running, running
from tests.ports import free_port
from tests.predictions import assert_books_are_right

from foretell.services.app.settings import AppSettings


@pytest.fixture
def settings(request: pytest.FixtureRequest, empty_database_url: str, tmp_path: Path) -> AppSettings:
    broker_url, prefix = f"sqlite:///{tmp_path / 'broker.db'}", ""
    if empty_database_url.startswith("postgresql"):
        broker_url, prefix = request.getfixturevalue("rabbitmq_url"), request.getfixturevalue("broker_prefix")
    return AppSettings(
        database_url=empty_database_url,
        broker_url=broker_url,
        broker_prefix=prefix,
        data_dir=tmp_path,
        port=free_port(),
        prices={"flight-delay": 1},
    )


@pytest.fixture
async def app(settings: AppSettings) -> AsyncIterator[Running]:
    """An app that runs; whatever was asked of it, the audit finds nothing afterwards."""
    async with running(settings) as app:
        yield app
        await assert_books_are_right(app.database)
