"""Databases of the monitoring service: copies of one that was migrated, as migrating takes most of a test's time."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.asides import run_aside
from tests.postgresql_databases import DatabasePool, postgresql_template

from foretell.services.monitoring.migrations.run import migrate
from foretell.services.monitoring.settings import MonitoringSettings
from foretell.services.monitoring.storage.database import MonitoringDatabase


async def _migrate(url: str) -> None:
    database = MonitoringDatabase(MonitoringSettings(monitoring_database_url=url))
    try:
        await migrate(database)
    finally:
        await database.close()


@pytest.fixture(scope="session")
def _monitoring_pool(postgresql_url: str) -> Iterator[DatabasePool]:
    with postgresql_template(postgresql_url, _migrate) as name:
        pool = DatabasePool(postgresql_url, name)
        yield pool
        pool.close()


@pytest.fixture(scope="session")
def _migrated_file_of_monitoring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("migrated") / "monitoring.db"
    run_aside(_migrate(f"sqlite:///{file}"))
    return file


@pytest.fixture
def monitoring_file_url(_migrated_file_of_monitoring: Path, tmp_path: Path) -> str:
    """The URL of a file with the tables and without rows, the test's own."""
    file = tmp_path / "monitoring.db"
    shutil.copy(_migrated_file_of_monitoring, file)
    return f"sqlite:///{file}"


@pytest.fixture(params=["postgresql", "sqlite"])
def monitoring_database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database with the tables and without rows, the test's own, on PostgreSQL and on SQLite in turn."""
    if request.param == "sqlite":
        yield request.getfixturevalue("monitoring_file_url")
        return
    with request.getfixturevalue("_monitoring_pool").database() as url:
        yield url
