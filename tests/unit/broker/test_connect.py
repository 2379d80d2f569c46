"""The URL chooses the broker, and says what is wrong with it without showing a password."""

from pathlib import Path

import pytest

from foretell.broker.connect import connect
from foretell.broker.sqlite_file import path_of
from foretell.kit.errors import Misconfigured


@pytest.mark.parametrize(
    "url",
    ["redis://:secret@localhost", "sqlite://", "sqlite:///", "sqlite:///:memory:", "amqp://", "amqp://:secret@:x/"],
)
async def test_a_url_that_names_no_broker_is_refused(url: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        await connect(url, name="test")
    assert "secret" not in str(refusal.value)


def test_three_slashes_are_relative_and_four_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert path_of("sqlite:///data/broker.db") == tmp_path / "data" / "broker.db"
    assert path_of("sqlite:////var/broker.db") == Path("/var/broker.db")
