"""Which store belongs to which database."""

from foretell.domain.predictions.postgresql import PostgresqlStore
from foretell.domain.predictions.sqlite import SqliteStore
from foretell.domain.predictions.store import Store, Told
from foretell.kit.database import Database
from foretell.kit.drivers import PostgresqlDriver


def open_store(database: Database, told: Told = lambda _: None) -> Store:
    """The store for this kind of database. `told` hears for which users a settlement wrote events."""
    if isinstance(database.driver, PostgresqlDriver):
        return PostgresqlStore(database.driver, told)
    return SqliteStore(database.driver, told)
