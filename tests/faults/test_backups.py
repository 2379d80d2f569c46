"""Backups of an embedded installation under load, the way back from each of them, and both broken off."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest
from tests.faults import faulty_model
from tests.faults.callers import new_callers
from tests.faults.promises import assert_promises_kept
from tests.services_disk import SmallDisk
from tests.services_system import SWEEPS
from tests.system import System, wait_until

from foretell.local.backups import making, restoring
from foretell.local.backups.copying import InUse
from foretell.local.backups.parts import parts_of
from foretell.local.installation import Installation
from foretell.local.moving import moving

pytestmark = pytest.mark.faults

#: What a copy of the broker does not hold was lost, and comes again after this.
_SETTINGS = {**SWEEPS, "FORETELL_LOST_AFTER_S": "2", "FORETELL_TASK_PULSE_S": "0.5"}


def _system(folder: Path) -> System:
    """An embedded installation whose files lie as the local engine has them."""
    folder.mkdir(exist_ok=True)
    return System(
        folder,
        database_url=f"sqlite:///{folder / 'foretell.db'}",
        broker_url=f"sqlite:///{folder / 'broker.db'}",
        **_SETTINGS,
    )


def _backup(folder: Path, file: Path) -> None:
    making.make(file, parts_of(Installation(folder), {}))


def _restore(folder: Path, file: Path) -> restoring.Restored:
    installation = Installation(folder)
    with installation.lock(lambda: None):
        return restoring.restore(file, installation, parts_of(installation, {}))


def _process(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """The command line as a process of its own, to be broken off."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FORETELL_")}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "foretell.cli", *arguments],
        env={**environment, "FORETELL_DATA_DIR": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def test_backups_under_load_are_whole(tmp_path: Path) -> None:
    """Everything that was accepted before a backup began is in it, and goes on after a restore."""
    old, new = tmp_path / "old", tmp_path / "new"
    files, accepted = [tmp_path / "first.tar", tmp_path / "second.tar.gz"], list[list[UUID]]()
    faulty_model.write_faulty_model(old / "models")
    order = {"model": faulty_model.NAME, "input": faulty_model.flight(faulty_model.SLEEPS_MS + 3)}
    system = _system(old)
    async with system.running(workers=2):
        callers = await new_callers(system, body=lambda: order)
        async with callers.calling():
            for file in files:
                await callers.progress(60)
                accepted.append(list(callers.accepted.values()))
                await asyncio.to_thread(_backup, old, file)
            with pytest.raises(InUse):
                _restore(old, files[0])
        await assert_promises_kept(system, callers)
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    for file, ids in zip(files, accepted, strict=True):
        restored = _restore(new, file)
        # What the first one brought is kept aside by the second.
        assert (restored.aside is not None) is (file == files[1])
        assert restored.aside is None or (restored.aside / "foretell.db").exists()
        system = _system(new)
        assert await system.audit() == []
        async with system.running(workers=2):
            ended = await assert_promises_kept(system, ids=ids)
        assert ended == {("succeeded", None): len(ids)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.tar", "new", "old", "second.tar.gz"]


async def test_what_was_queued_goes_on(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    system = _system(old)
    async with system.running(workers=0):
        callers = await new_callers(system)
        async with callers.calling():
            await callers.progress(30)
        _backup(old, tmp_path / "backup.tar")
    _restore(new, tmp_path / "backup.tar")
    system = _system(new)
    assert await system.count("queued") == len(callers.accepted)
    async with system.running(workers=1):
        ended = await assert_promises_kept(system, ids=callers.accepted.values())
    assert ended == {("succeeded", None): len(callers.accepted)}


async def test_what_was_queued_goes_on_on_servers(
    tmp_path: Path, fresh_postgresql: str, rabbitmq_url: str, broker_prefix: str
) -> None:
    """Moved to PostgreSQL, with a broker that knows nothing."""
    folder = tmp_path / "data"
    system = _system(folder)
    async with system.running(workers=1):
        callers = await new_callers(system)
        async with callers.calling():
            await callers.progress(10)
            await system.scale("worker", 0)
            await callers.progress(10)
    installation = Installation(folder)
    await asyncio.to_thread(moving.move, fresh_postgresql, installation, parts_of(installation, {}))
    moved = System(
        folder, database_url=fresh_postgresql, broker_url=rabbitmq_url, broker_prefix=broker_prefix, **_SETTINGS
    )
    assert await moved.count("queued") >= 10
    async with moved.running(workers=1):
        ended = await assert_promises_kept(moved, ids=callers.accepted.values())
    assert ended == {("succeeded", None): len(callers.accepted)}


@pytest.fixture
def large(tmp_path: Path, _migrated_sqlite: Path) -> Path:
    """A stopped installation whose database takes a while to copy."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "foretell.db").write_bytes(_migrated_sqlite.read_bytes())
    with closing(sqlite3.connect(folder / "foretell.db")) as connection:
        connection.execute("CREATE TABLE ballast (content BLOB)")
        connection.executemany("INSERT INTO ballast VALUES (randomblob(100000))", [()] * 500)
        connection.commit()
    (folder / "secret_key").write_text("a" * 64)
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_a_backup_that_is_broken_off_leaves_nothing(large: Path, tmp_path: Path, number: signal.Signals) -> None:
    target = tmp_path / "to"
    target.mkdir()
    process = _process(large, "backup", str(target / "backup.tar"))
    copy = target / ".backup.tar.partial" / "foretell.db"
    await wait_until(lambda: process.poll() is not None or copy.exists(), timeout_s=60, what="the copy")
    process.send_signal(number)
    await asyncio.to_thread(process.wait)
    # On a machine that held us up it may have been done before.
    whole = process.returncode == 0
    assert (target / "backup.tar").exists() is whole
    if number != signal.SIGKILL and not whole:
        assert list(target.iterdir()) == []
    # What a killed one left behind goes with the next.
    (target / "backup.tar").unlink(missing_ok=True)
    _backup(large, target / "backup.tar")
    assert [path.name for path in target.iterdir()] == ["backup.tar"]


@pytest.mark.parametrize("name", ["backup.tar", "backup.tar.gz"])
def test_a_full_disk_leaves_nothing(large: Path, small_disk: SmallDisk, name: str) -> None:
    """Seen before it begins, or, where nobody knows how small it will be, in the middle of the archive."""
    with pytest.raises(making.NoRoomForBackup):
        _backup(large, small_disk.folder / name)
    assert list(small_disk.folder.iterdir()) == []


async def test_a_restore_that_is_killed_leaves_the_old_or_the_new(large: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    _backup(large, file)
    for milliseconds in (0, 100, 300):
        (large / "secret_key").write_text("b" * 64)
        process = _process(large, "restore", str(file))
        begun = large / "foretell.db.restoring"
        await wait_until(lambda: process.poll() is not None or begun.exists(), timeout_s=60, what="a beginning")  # noqa: B023
        await asyncio.sleep(milliseconds / 1000)
        process.kill()
        await asyncio.to_thread(process.wait)
        if not (large / "restore.json").exists():
            assert (large / "foretell.db").exists()
        _restore(large, file)
        assert (large / "secret_key").read_text() == "a" * 64
        assert not list(large.glob("*.restoring"))
