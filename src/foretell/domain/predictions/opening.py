"""Chooses the store for a database."""

from foretell.domain.predictions.postgresql import PostgresqlStore
from foretell.domain.predictions.sqlite import SqliteStore
from foretell.domain.predictions.store import Store, Told
from foretell.kit.database import Database
from foretell.kit.drivers import PostgresqlDriver


def open_store(database: Database, told: Told = lambda _: None) -> Store:
    """The store for this kind of database. `told` is called with the users for whom a settlement wrote events."""
    if isinstance(database.driver, PostgresqlDriver):
        return PostgresqlStore(database.driver, told)
    return SqliteStore(database.driver, told)
