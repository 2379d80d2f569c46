"""URLs of SQLite databases are read as SQLAlchemy reads them."""

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from foretell.kit.errors import Misconfigured
from foretell.kit.sqlite_address import sqlite_path


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///here.db",
        "sqlite:////data/it's here/x+y%20z.db",
        "sqlite:////a:b@c/#d/[e]?timeout=5",
        "sqlite:///C:/data/ä.db",
        "sqlite://host/data.db",
    ],
)
def test_the_path_is_the_one_of_sqlalchemy(url: str) -> None:
    assert sqlite_path(url) == Path(make_url(url).database or "")


@pytest.mark.parametrize(
    "url", ["sqlite:", "sqlite:here.db", "sqlite:/here.db", "sqlite://", "sqlite:///", "sqlite:///?x=1"]
)
def test_a_url_without_a_path_is_refused(url: str) -> None:
    with pytest.raises(Misconfigured, match="has no path"):
        sqlite_path(url)
