import fcntl
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from foretell.contracts.bot_secret import bot_secret_key
from foretell.kit.errors import Misconfigured
from foretell.local.installation import (
    EngineRecord,
    FolderUnusable,
    Installation,
    Program,
    settings_of,
    usual_data_dir,
)

RECORD = EngineRecord(
    supervisor_pid=12,
    socket="/nowhere/supervisor.sock",
    database_url="postgresql://somebody:secret@db/foretell",
    broker_url="amqp://somebody:secret@broker/",
    environment="production",
    programs=[Program("worker-1", "worker", "worker-1-abc", "127.0.0.1", 20001)],
)


def test_the_record_comes_back_and_is_for_its_owner_only(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "data")
    installation.prepare()
    installation.write(RECORD)
    assert installation.read() == RECORD
    assert stat.S_IMODE(installation.record_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(installation.run_dir.stat().st_mode) == 0o700


def test_settings_that_it_does_not_run_with_are_named_and_none_is_kept_readable(tmp_path: Path) -> None:
    began_with = {"FORETELL_APP_PORT": "8000", "TELEGRAM_TOKEN": "12:secret", "FORETELL_DATA_DIR": "data", "HOME": "/"}
    record = replace(RECORD, settings=settings_of(began_with))
    installation = Installation(tmp_path)
    installation.prepare()
    installation.write(record)
    assert "12:secret" not in installation.record_file.read_text()
    assert installation.read() == record

    assert record.differing(began_with) == []
    # What is left out is no wish for anything else, and where the data lies is the same in other words.
    assert record.differing({"FORETELL_DATA_DIR": "/elsewhere/data", "HOME": "/root"}) == []
    changed = {"TELEGRAM_TOKEN": "13:other", "FORETELL_APP_PORT": "8000", "FORETELL_STARS_OFFERS": "1:1"}
    assert record.differing(changed) == ["FORETELL_STARS_OFFERS", "TELEGRAM_TOKEN"]
    # Of a release that did not write them down, nobody knows.
    assert RECORD.differing(changed) == []


def test_the_secret_of_the_bot_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "data")
    installation.prepare()
    secret = installation.bot_secret()
    assert len(bot_secret_key(secret)) == 32
    assert Installation(tmp_path / "data").bot_secret() == secret
    assert stat.S_IMODE((tmp_path / "data" / "bot_secret").stat().st_mode) == 0o600
    (tmp_path / "data" / "bot_secret").write_text("whsec_x")
    with pytest.raises(Misconfigured, match="bot_secret holds no secret"):
        installation.bot_secret()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 99}', '{"format": 1, "x": 2}'])
def test_a_record_that_cannot_be_read_counts_as_none(tmp_path: Path, content: str) -> None:
    installation = Installation(tmp_path)
    assert installation.read() is None
    installation.prepare()
    installation.record_file.write_text(content)
    assert installation.read() is None


def test_the_data_folder_comes_from_the_environment(tmp_path: Path) -> None:
    assert Installation.from_environment({"FORETELL_DATA_DIR": str(tmp_path)}).data_dir == tmp_path
    assert Installation.from_environment({}).data_dir == Path.cwd() / "data"


def test_a_socket_in_a_deep_folder_lies_elsewhere_but_always_at_the_same_place(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["deeper"] * 20)
    installation = Installation(deep)
    assert len(os.fsencode(installation.socket)) <= 90
    assert installation.socket == Installation(deep).socket != Installation(deep / "other").socket
    installation.prepare()
    assert stat.S_IMODE(installation.socket.parent.stat().st_mode) == 0o700
    installation.remove_run_files()
    assert not installation.socket.parent.exists()
    assert not installation.run_dir.exists()


def test_somebody_else_s_folder_is_not_trusted_with_the_socket(tmp_path: Path) -> None:
    installation = Installation(tmp_path.joinpath(*["deeper"] * 20))
    installation.socket.parent.mkdir(mode=0o755)
    try:
        with pytest.raises(FolderUnusable):
            installation.prepare()
    finally:
        installation.socket.parent.rmdir()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(FolderUnusable, match="FORETELL_DATA_DIR"):
        Installation(tmp_path / "data").prepare()


def test_the_lock_lets_one_in_at_a_time_even_when_the_one_before_removed_its_file(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with installation.lock(waits.set):
            order.append("second")
            installation.remove_run_files()

    thread = threading.Thread(target=second)
    with installation.lock(lambda: pytest.fail("there is nobody to wait for")):
        thread.start()
        assert waits.wait(10)
        order.append("first")
        installation.remove_run_files()
    thread.join(10)
    assert order == ["first", "second"]


def test_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    with pytest.raises(ZeroDivisionError), installation.lock(lambda: None):
        raise ZeroDivisionError
    descriptor = os.open(installation.run_dir / "lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_commands_find_the_installation_of_their_environment_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, elsewhere = tmp_path / "own", tmp_path / "elsewhere"
    for folder in (own, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(elsewhere)
    # Where nothing was ever started, a command begins in the current folder.
    assert usual_data_dir(own / ".venv") == Path("data")
    Installation(own / "data").prepare()
    assert usual_data_dir(own / ".venv") == own / "data"
    # Without an environment of its own, the current folder is all there is.
    assert usual_data_dir(None) == Path("data")
    # A folder of that name that holds something else is no installation.
    (elsewhere / "data" / "logs").mkdir(parents=True)
    assert usual_data_dir(own / ".venv") == own / "data"
    # An installation in the current folder comes first.
    Installation(elsewhere / "data").prepare()
    assert usual_data_dir(own / ".venv") == Path("data")


@pytest.mark.parametrize("file", ["foretell.db", "bot_secret", "moved.json", "restore.json"])
def test_an_installation_that_is_stopped_is_found_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / file).touch()
    assert usual_data_dir(tmp_path / "own" / ".venv") == tmp_path / "own" / "data"
