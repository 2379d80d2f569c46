"""Migrate a database to the tables of this release."""

from pathlib import Path

from foretell.kit.migrations import Migrations

#: Every revision in `versions/`, oldest first; the code needs the last one.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")

#: The lock is "foretell" in ASCII.
_migrations = Migrations(Path(__file__).parent, REVISIONS, lock=int.from_bytes(b"foretell"))

migrate = _migrations.migrate
migrate_when_possible = _migrations.migrate_when_possible
upgrade = _migrations.upgrade
