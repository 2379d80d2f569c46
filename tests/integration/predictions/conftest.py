"""A store on each database, and books that are right after every test."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest
from tests.predictions import assert_books_are_right, open_account

from foretell.domain.predictions.opening import open_store
from foretell.domain.predictions.store import Store
from foretell.kit.database import Database


@pytest.fixture
async def database(database: Database) -> AsyncIterator[Database]:
    """The database of every test; whatever the test did, the audit finds nothing in it afterwards."""
    yield database
    await assert_books_are_right(database)


@pytest.fixture
def store(database: Database) -> Store:
    return open_store(database)


@pytest.fixture
async def ada(database: Database) -> UUID:
    """A user with 100 credits."""
    return await open_account(database)


@pytest.fixture
async def open_stores(empty_database_url: str, database: Database) -> AsyncIterator[Callable[[int], Any]]:
    """Opens stores on connections of their own, as other processes have them."""
    opened: list[Database] = []

    def open_stores(count: int) -> list[Store]:
        fresh = [Database(empty_database_url, application=f"store-{number}") for number in range(count)]
        opened.extend(fresh)
        return [open_store(each) for each in fresh]

    yield open_stores
    for each in opened:
        await each.close()
