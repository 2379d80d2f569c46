"""The archive of a backup, and the renames of a restore, each of which may be the last one of a process."""

import asyncio
import json
import os
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from foretell.broker.sqlite_file import BrokerFile
from foretell.local.backups import archive, making, restoring
from foretell.local.backups.archive import BackupDamaged, BackupNewer, NoBackup
from foretell.local.backups.making import FileExists, NothingToBackUp
from foretell.local.backups.parts import NotEmbedded, parts_of
from foretell.local.backups.restoring import MovedAway
from foretell.local.installation import Installation


@pytest.fixture
def installation(tmp_path: Path, _migrated_sqlite: Path) -> Installation:
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(_migrated_sqlite, folder / "foretell.db")
    (folder / "secret_key").write_text("a" * 64)
    (folder / "models" / "m" / "1.0.0").mkdir(parents=True)
    (folder / "models" / "m" / "1.0.0" / "model.toml").write_text("name = 'm'")
    (folder / "models" / "traffic.toml").write_text("[m]")
    (folder / "models" / ".reload").write_text("stamp")
    return Installation(folder)


def _backup(installation: Installation, file: Path, **how: bool) -> None:
    making.make(file, parts_of(installation, {}), **how)


def _restore(installation: Installation, file: Path) -> restoring.Restored:
    return restoring.restore(file, installation, parts_of(installation, {}))


def _change(installation: Installation) -> None:
    (installation.data_dir / "secret_key").write_text("b" * 64)
    (installation.data_dir / "models" / "traffic.toml").write_text("[changed]")
    with closing(sqlite3.connect(installation.data_dir / "foretell.db")) as connection:
        connection.execute("CREATE TABLE later (at TEXT)")
        connection.commit()


def _is_as_before(folder: Path) -> bool:
    with closing(sqlite3.connect(folder / "foretell.db")) as connection:
        later = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'later'").fetchone() != (0,)
    secret, traffic = (folder / "secret_key").read_text(), (folder / "models" / "traffic.toml").read_text()
    assert (later, secret, traffic) in {(False, "a" * 64, "[m]"), (True, "b" * 64, "[changed]")}, "a mixture"
    return not later


@pytest.mark.parametrize("name", ["backup.tar", "backup.tar.gz", "backup"])
def test_there_and_back(installation: Installation, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    _backup(installation, file)
    _change(installation)
    restored = _restore(installation, file)
    assert _is_as_before(installation.data_dir)
    assert restored.aside is not None
    assert not _is_as_before(restored.aside)
    assert (installation.data_dir / "models" / "m" / "1.0.0" / "model.toml").read_text() == "name = 'm'"
    assert tarfile.is_tarfile(file)
    assert (file.read_bytes()[:2] == b"\x1f\x8b") is name.endswith(".gz")
    modes = {(installation.data_dir / name).stat().st_mode & 0o777 for name in ("foretell.db", "secret_key")}
    assert modes == {0o600}


def test_what_the_backup_has_not_is_put_aside(installation: Installation, tmp_path: Path) -> None:
    _backup(installation, tmp_path / "backup")
    (installation.data_dir / "bot_secret").write_text("of later")
    restored = _restore(installation, tmp_path / "backup")
    assert not (installation.data_dir / "bot_secret").exists()
    assert restored.aside is not None
    assert (restored.aside / "bot_secret").read_text() == "of later"


def test_an_earlier_backup_is_replaced_only_on_demand(installation: Installation, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    _backup(installation, file)
    with pytest.raises(FileExists):
        _backup(installation, file)
    _change(installation)
    _backup(installation, file, replace=True)
    _restore(installation, file)
    assert not _is_as_before(installation.data_dir)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NothingToBackUp):
        _backup(Installation(tmp_path), tmp_path / "backup")
    assert list(tmp_path.iterdir()) == []


def test_postgresql_is_not_ours_to_copy(tmp_path: Path) -> None:
    with pytest.raises(NotEmbedded):
        parts_of(Installation(tmp_path), {"FORETELL_DATABASE_URL": "postgresql://db/foretell"})


def test_an_installation_that_moved_is_not_restored(installation: Installation, tmp_path: Path) -> None:
    _backup(installation, tmp_path / "backup")
    _change(installation)
    installation.moved_file.write_text('{"to": "db:5432/foretell"}')
    with pytest.raises(MovedAway, match="moved to db:5432/foretell"):
        _restore(installation, tmp_path / "backup")
    assert not _is_as_before(installation.data_dir)
    assert not list(installation.data_dir.glob("before-restore-*"))
    installation.moved_file.unlink()
    _restore(installation, tmp_path / "backup")
    assert _is_as_before(installation.data_dir)


def test_what_is_no_file_is_said_with_its_name(installation: Installation, tmp_path: Path) -> None:
    with pytest.raises(NoBackup, match="there is no such file") as caught:
        _restore(installation, tmp_path / "nope.tar")
    assert str(tmp_path / "nope.tar") in caught.value.message
    with pytest.raises(NoBackup, match="it is a folder") as caught:
        _restore(installation, tmp_path)
    assert str(tmp_path) in caught.value.message


def test_messages_in_hand_wait_again_in_the_copy(installation: Installation, tmp_path: Path) -> None:
    broker = installation.data_dir / "broker.db"
    opened = BrokerFile(broker, on_open=lambda _: None)
    asyncio.run(opened.open())
    asyncio.run(opened.close())
    with closing(sqlite3.connect(broker)) as connection:
        connection.execute("INSERT INTO receiver VALUES ('somebody', 1)")
        connection.execute("INSERT INTO message VALUES (1, 'ml_tasks', 1, 'somebody'), (2, 'ml_tasks', 2, NULL)")
        connection.commit()
    _backup(installation, tmp_path / "backup")
    new = Installation(tmp_path / "new")
    new.data_dir.mkdir()
    _restore(new, tmp_path / "backup")
    with closing(sqlite3.connect(new.data_dir / "broker.db")) as connection:
        assert connection.execute("SELECT id, attempts, receiver FROM message").fetchall() == [
            (1, 0, None),
            (2, 2, None),
        ]
        assert connection.execute("SELECT * FROM receiver").fetchall() == []


def _damaged(whole: bytes, inside: int) -> dict[str, bytes]:
    return {
        "cut short": whole[: inside + 1000],
        "empty": b"",
        "a byte": whole[:inside] + bytes([whole[inside] ^ 1]) + whole[inside + 1 :],
        "something else": b"PK\x03\x04" + whole[4:],
        "another manifest": whole.replace(b'"sha256": "', b'"sha256": "0', 1),
    }


@pytest.mark.parametrize("how", _damaged(b"12", 1))
def test_a_damaged_backup_changes_nothing(installation: Installation, tmp_path: Path, how: str) -> None:
    file = tmp_path / "backup"
    _backup(installation, file)
    with tarfile.open(file) as opened:
        inside = opened.getmember("foretell.db").offset_data + 5000
    file.write_bytes(_damaged(file.read_bytes(), inside)[how])
    _change(installation)
    with pytest.raises((BackupDamaged, NoBackup)):
        _restore(installation, file)
    assert not _is_as_before(installation.data_dir)
    assert not list(installation.data_dir.glob("*restor*"))


def test_a_backup_of_a_newer_release_is_refused(installation: Installation, tmp_path: Path) -> None:
    with closing(sqlite3.connect(installation.data_dir / "foretell.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    _backup(installation, tmp_path / "backup")
    with pytest.raises(BackupNewer, match="9999"):
        _restore(Installation(tmp_path / "new"), tmp_path / "backup")


@pytest.mark.parametrize("name", ["models/../../escaped", "/etc/cron.d/x", "models/", "other.db", "models//a/../../b"])
def test_a_backup_writes_nowhere_else(installation: Installation, tmp_path: Path, name: str) -> None:
    file = tmp_path / "forged"
    source = tmp_path / "content"
    source.write_text("content")
    manifest = archive.Manifest("0.1.0", "2026-01-01T00:00:00+00:00", (), (archive.entry_of(name, source),))
    archive.write(file, manifest, {name: source}, compressed=False)
    with pytest.raises(BackupDamaged, match="names"):
        _restore(installation, file)


@pytest.mark.parametrize("renames", range(7))
def test_a_restore_that_was_killed_among_its_renames_is_finished(
    installation: Installation, tmp_path: Path, renames: int
) -> None:
    """The plan is written and some renames are done; the next one to look does the rest."""
    folder, aside = installation.data_dir, installation.data_dir / "before-restore-then"
    new = tmp_path / "new"
    shutil.copytree(folder, new)
    _change(installation)
    names = ("foretell.db", "secret_key", "models")
    for name in names:
        (new / name).rename(folder / f"{name}.restoring")
    moves = [
        {"staged": str(folder / f"{name}.restoring"), "target": str(folder / name), "aside": str(aside / name)}
        for name in names
    ]
    installation.restore_plan.write_text(json.dumps(moves))
    steps = [step for move in moves for step in ((move["target"], move["aside"]), (move["staged"], move["target"]))]
    for old, target in steps[:renames]:
        aside.mkdir(exist_ok=True)
        os.rename(old, target)
    assert restoring.finish(installation)
    assert _is_as_before(folder)
    assert not _is_as_before(aside)
    assert not restoring.finish(installation)
    assert not list(folder.glob("*restoring"))
