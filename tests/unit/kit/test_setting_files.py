"""Settings that stand in files."""

from pathlib import Path

import pytest

from foretell.kit.errors import Misconfigured
from foretell.kit.setting_files import take_from_files


def test_a_file_stands_for_its_setting(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a secret with spaces \n")
    environment = {"FORETELL_SECRET_KEY_FILE": str(tmp_path / "key"), "POSTGRES_PASSWORD_FILE": "/absent"}
    take_from_files(environment)
    # Whoever is started with this environment has the setting, and no file to be read twice.
    assert environment == {"FORETELL_SECRET_KEY": "a secret with spaces", "POSTGRES_PASSWORD_FILE": "/absent"}


def test_telegrams_token_may_stand_in_one(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("1:AA")
    environment = {"TELEGRAM_TOKEN_FILE": str(tmp_path / "token")}
    take_from_files(environment)
    assert environment == {"TELEGRAM_TOKEN": "1:AA"}


def test_the_environment_itself_counts_more_than_a_file() -> None:
    environment = {"FORETELL_ADMIN_TOKEN_FILE": "/absent", "FORETELL_ADMIN_TOKEN": "given"}
    take_from_files(environment)
    assert environment == {"FORETELL_ADMIN_TOKEN": "given"}


def test_an_empty_name_is_none_and_an_empty_setting_is_not_set(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://db/x")
    environment = {
        "FORETELL_SECRET_KEY_FILE": "",
        "FORETELL_DATABASE_URL": "",
        "FORETELL_DATABASE_URL_FILE": str(tmp_path / "url"),
    }
    take_from_files(environment)
    assert environment == {"FORETELL_DATABASE_URL": "postgresql://db/x"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "can't be read"),
        (b"\n", "is empty"),
        (b"s3cr3t\xff", "no UTF-8"),
        (b"s3cr3t" * 20_000, "more than 64 KiB"),
        (b"s3cr3t\0", "zero byte"),
    ],
    ids=["absent", "empty", "binary", "large", "zero"],
)
def test_what_is_no_setting_is_refused_by_name_and_never_shown(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Misconfigured, match=reason) as refused:
        take_from_files({"FORETELL_SECRET_KEY_FILE": str(file)})
    assert "FORETELL_SECRET_KEY_FILE" in refused.value.message
    assert "s3cr3t" not in refused.value.message


def test_a_folder_gives_every_setting_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "FORETELL_SECRET_KEY").write_text("found\n")
    (tmp_path / "FORETELL_ADMIN_TOKEN").write_text("found\n")
    (tmp_path / "named").write_text("named\n")
    # What Kubernetes puts beside them, and what is nobody's setting.
    (tmp_path / "..data").mkdir()
    (tmp_path / "README").write_text("nothing of ours")
    environment = {
        "FORETELL_SECRETS_DIR": str(tmp_path),
        "FORETELL_ADMIN_TOKEN_FILE": str(tmp_path / "named"),
        "FORETELL_BOT_SECRET": "given",
    }
    take_from_files(environment)
    assert environment == {
        "FORETELL_SECRET_KEY": "found",
        "FORETELL_ADMIN_TOKEN": "named",
        "FORETELL_BOT_SECRET": "given",
    }


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="FORETELL_SECRETS_DIR"):
        take_from_files({"FORETELL_SECRETS_DIR": str(tmp_path / "absent")})
