"""The command line in a folder of the test's own."""

import asyncio
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from foretell.cli.main import run
from foretell.kit.database import Database


@dataclass
class Answer:
    """What one call of the command line gave."""

    code: int
    out: str
    error: str


class CommandLine:
    """Calls `foretell` as the entry point does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str, stdin: str = "") -> Answer:
        self._monkeypatch.setattr("sys.argv", ["foretell", *arguments])
        self._monkeypatch.setattr("sys.stdin", StringIO(stdin))
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            run()
        captured = self._capsys.readouterr()
        code = caught.value.code
        return Answer(code if isinstance(code, int) else 0, captured.out, captured.err)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # The checkout that these tests run in may be somebody's installation.
    monkeypatch.setenv("FORETELL_DATA_DIR", str(tmp_path / "data"))
    for name in ("DATABASE_URL", "BROKER_URL", "APP_PORT", "URL", "API_KEY", "MODELS_DIR", "PORT"):
        monkeypatch.delenv(f"FORETELL_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def foretell(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def database(folder: Path) -> str:
    """An empty embedded database where the command line looks for one."""
    from foretell.domain.migrations.run import migrate

    url = f"sqlite:///{folder / 'data' / 'foretell.db'}"

    async def make() -> None:
        database = Database(url)
        await migrate(database)
        await database.close()

    asyncio.run(make())
    return url
