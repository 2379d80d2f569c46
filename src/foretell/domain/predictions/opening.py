"""Which store belongs to which database."""

from foretell.domain.predictions.postgresql import PostgresqlStore
from foretell.domain.predictions.sqlite import SqliteStore
from foretell.domain.predictions.store import Store
from foretell.kit.database import Database
from foretell.kit.drivers import PostgresqlDriver


def open_store(database: Database) -> Store:
    """The store for this kind of database."""
    if isinstance(database.driver, PostgresqlDriver):
        return PostgresqlStore(database.driver)
    return SqliteStore(database.driver)
