"""The command line as it is called: a process of its own for what runs, the runner of Typer for what only looks."""

import asyncio
import json
import re
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import text

from foretell import __version__
from foretell.cli.main import app
from foretell.cli.model_commands import models_app
from foretell.cli.output import exit_code
from foretell.cli.predicting import FieldUnreadable, read_fields
from foretell.cli.serving import check_settings
from foretell.cli.user_commands import users_app
from foretell.domain.accounts.authentication import authenticate
from foretell.domain.accounts.passwords import Passwords
from foretell.domain.errors import InvalidCredentials
from foretell.kit.database import Database
from foretell.kit.errors import Misconfigured

from .conftest import CommandLine


def test_every_command_has_help() -> None:
    promised = {"up", "down", "status", "logs", "scale", "serve", "predict", "audit"}
    assert promised <= {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    assert {group.name for group in app.registered_groups} == {"users", "models", "monitor"}


@pytest.mark.parametrize("command", [(), ("users", "grant"), ("models",), ("monitor", "errors"), ("serve",)])
def test_help_is_asked_for_in_two_ways(foretell: CommandLine, command: tuple[str, ...]) -> None:
    short, long = foretell(*command, "-h"), foretell(*command, "--help")
    assert short.code == long.code == 0
    assert short.out == long.out
    assert short.out.startswith("Usage: foretell")


def test_it_says_which_release_it_is(foretell: CommandLine) -> None:
    assert foretell("--version").out == f"foretell {__version__}\n"


def test_a_shell_is_told_how_to_complete() -> None:
    command = Path(sys.executable).with_name("foretell")
    # The shell is found among the processes above, and bash becomes its last command if it may.
    done = subprocess.run(
        ["bash", "-c", f'"{command}" --show-completion; exit $?'], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "_FORETELL_COMPLETE=complete_bash" in done.stdout


@pytest.mark.parametrize(("typed", "offered"), [("foretell sta", "status"), ("foretell users gr", "grant")])
def test_shells_complete_commands(
    foretell: CommandLine, monkeypatch: pytest.MonkeyPatch, typed: str, offered: str
) -> None:
    monkeypatch.setenv("_FORETELL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    assert foretell().out.split() == [offered]


@pytest.mark.parametrize(("healthy", "code"), [([], 3), ([True, True], 0), ([True, False], 1)])
def test_status_ends_so_that_scripts_can_ask(healthy: list[bool], code: int) -> None:
    assert exit_code(healthy) == code


def test_prepare_makes_the_tables_once(foretell: CommandLine, folder: Path) -> None:
    first, second = foretell("prepare"), foretell("prepare")
    assert first.code == second.code == 0
    assert first.out == second.out
    assert first.out.startswith("The database has the tables of this release")
    assert json.loads(foretell("audit", "--json").out) == []


def test_prepare_says_that_the_database_is_away(foretell: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETELL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    answer = foretell("prepare")
    assert answer.code == 1
    assert "database" in answer.error


def test_a_setting_from_a_file_reaches_every_command(
    foretell: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Empty is not set; so named, what the command puts there is gone after the test.
    monkeypatch.setenv("FORETELL_DATABASE_URL", "")
    (folder / "url").write_text(f"sqlite:///{folder / 'named.db'}\n")
    monkeypatch.setenv("FORETELL_DATABASE_URL_FILE", str(folder / "url"))
    assert foretell("prepare").code == 0
    assert (folder / "named.db").is_file()
    monkeypatch.setenv("FORETELL_SECRET_KEY_FILE", str(folder / "absent"))
    refused = foretell("status")
    assert (refused.code, "FORETELL_SECRET_KEY_FILE" in refused.error) == (1, True)


def test_nothing_runs_is_a_sentence_and_no_failure(foretell: CommandLine, folder: Path) -> None:
    assert foretell("status").out.startswith("Foretell is not running here")
    assert foretell("down").out == "Foretell is not running here; there is nothing to stop.\n"
    assert foretell("down").code == 0
    # For scripts: 3, as of any service that does not run.
    assert foretell("status").code == foretell("status", "--json").code == 3
    assert json.loads(foretell("status", "--json").out) == []
    # Looking leaves nothing behind.
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("arguments", [["scale", "3"], ["logs"]])
def test_what_needs_something_running_says_so(foretell: CommandLine, arguments: list[str]) -> None:
    answer = foretell(*arguments)
    assert answer.code == 1
    assert re.fullmatch(r"Foretell is not running here .*\n", answer.error)


def test_services_that_are_not_there(foretell: CommandLine) -> None:
    answer = foretell("serve", "wroker")
    assert (answer.code, answer.out) == (1, "")
    assert "app, dispatcher, worker" in answer.error


def test_a_setting_that_is_wrong_is_named_without_its_value(
    foretell: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORETELL_STOP_GRACE_S", "hunter2")
    answer = foretell("serve", "worker")
    assert answer.code == 1
    assert "FORETELL_STOP_GRACE_S" in answer.error
    assert "hunter2" not in answer.error


def test_without_a_database_there_is_nothing_to_grant(foretell: CommandLine, folder: Path) -> None:
    for arguments in (["users", "list"], ["users", "grant", "ada", "5"], ["audit"]):
        answer = foretell(*arguments)
        assert answer.code == 1
        assert "There is no database at" in answer.error
    assert list(folder.iterdir()) == []


def test_accounts_and_credits(foretell: CommandLine, database: str) -> None:
    added = foretell("users", "add", "Ada", "--password-stdin", "--credits", "5", stdin="a good password\n")
    assert (added.code, added.out) == (0, "Created the user Ada with 5 credits.\n")
    granted = foretell("users", "grant", "ada", "10", "--reference", "order-1", "--note", "thanks")
    assert granted.out == "Granted 10 credits to Ada, who has 15 available now.\n"
    again = foretell("users", "grant", "ada", "10", "--reference", "order-1")
    assert again.out == "Granted before, by this reference: 10 credits to Ada, who has 15 available now.\n"
    assert again.code == 0
    foretell("users", "add", "Bob", "--password-stdin", stdin="another password\n")
    for name, credits in (("ada", "11"), ("bob", "10")):
        other = foretell("users", "grant", name, credits, "--reference", "order-1")
        assert (other.code, other.out) == (1, "")
        assert "order-1" in other.error
    ada, bob = json.loads(foretell("users", "list", "--json").out)
    assert (ada["username"], ada["role"], ada["available"], ada["held"]) == ("Ada", "user", 15, 0)
    assert bob["available"] == 0
    assert "Ada" in foretell("users", "list").out


def test_an_operator_changes_passwords_and_closes_accounts(foretell: CommandLine, database: str) -> None:
    foretell("users", "add", "Ada", "--password-stdin", stdin="a good password\n")
    assert foretell("users", "password", "ada", "--password-stdin", stdin="a better password\n").code == 0
    assert foretell("users", "password", "ada", "--password-stdin", stdin="short\n").code == 1
    passwords = Passwords()
    database_of_ada = Database(database)

    async def log_in(password: str) -> None:
        await authenticate(database_of_ada, passwords, "ada", password)

    with asyncio.Runner() as runner:
        runner.run(log_in("a better password"))
        with pytest.raises(InvalidCredentials):
            runner.run(log_in("a good password"))
        assert foretell("users", "close", "ada").code == 0
        with pytest.raises(InvalidCredentials):
            runner.run(log_in("a better password"))
        runner.run(database_of_ada.close())
    passwords.close()
    missing = foretell("users", "close", "nobody")
    assert (missing.code, missing.error) == (1, "There is no such user.\n")


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["users", "grant", "nobody", "5"], ""),
        (["users", "add", "x", "--password-stdin"], "a good password\n"),
        (["users", "add", "ada", "--password-stdin"], "short\n"),
        (["users", "add", "ada", "--password-stdin"], ""),
    ],
)
def test_what_is_refused_is_one_sentence(
    foretell: CommandLine, database: str, arguments: list[str], stdin: str
) -> None:
    answer = foretell(*arguments, stdin=stdin)
    assert (answer.code, answer.out) == (1, "")
    assert len(answer.error.strip().splitlines()) == 1
    assert json.loads(foretell("users", "list", "--json").out) == []


def test_audit_is_silent_about_what_is_right_and_ends_with_1_when_something_is_wrong(
    foretell: CommandLine, database: str
) -> None:
    foretell("users", "add", "ada", "--password-stdin", "--credits", "5", stdin="a good password\n")
    clean = foretell("audit")
    assert (clean.code, len(clean.out.splitlines())) == (0, 1)
    assert json.loads(foretell("audit", "--json").out) == []

    async def steal() -> None:
        books = Database(database)
        async with books.transaction() as connection:
            await connection.execute(text("UPDATE wallets SET available = available + 7"))
        await books.close()

    asyncio.run(steal())
    wrong = foretell("audit")
    assert wrong.code == 1
    assert "12" in wrong.out
    found: list[dict[str, Any]] = json.loads(foretell("audit", "--json").out)
    assert found
    assert {"check", "what", "ids", "expected", "found", "total"} <= found[0].keys()


def test_models(foretell: CommandLine) -> None:
    listed = json.loads(foretell("models", "list", "--json").out)
    assert "flight-delay" in {model["name"] for model in listed}
    assert "flight-delay" in foretell("models", "list").out
    shown = foretell("models", "show", "flight-delay").out
    assert "departure_time" in shown
    assert "foretell predict flight-delay " in shown
    absent = foretell("models", "show", "nothing")
    assert (absent.code, absent.error) == (1, "There is no model nothing.\n")


def test_nobody_answers_is_one_sentence(foretell: CommandLine) -> None:
    # Nobody listens on port 1 of the loopback.
    answer = foretell("predict", "flight-delay", "carrier=AA", "--url", "http://127.0.0.1:1")
    assert answer.code == 1
    assert "foretell status" in answer.error


SCHEMA = {
    "additionalProperties": False,
    "properties": {
        "carrier": {"type": "string"},
        "distance": {"type": "number"},
        "hour": {"type": "integer"},
        "fast": {"type": "boolean"},
        "note": {"type": ["string", "null"]},
        "list": {"type": "array"},
        "size": {"enum": ["1", "2"]},
        "code": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "weather": {"enum": [1, 2]},
        "any": {},
    },
}


def test_fields_get_the_types_of_the_schema() -> None:
    fields = ["carrier=12", "distance=550", "hour=9", "fast=true", "note=a=b", "list=[1, 2]"]
    fields += ["size=2", "code=7", "weather=2", "any=x"]
    assert read_fields(fields, SCHEMA) == {
        "carrier": "12",
        "distance": 550,
        "hour": 9,
        "fast": True,
        "note": "a=b",
        "list": [1, 2],
        "size": "2",
        "code": "7",
        "weather": 2,
        "any": "x",
    }


@pytest.mark.parametrize("fields", [["carrier"], ["=AA"], ["hour=nine"], ["hour=1", "hour=2"], ["wings=2"]])
def test_fields_that_cannot_be_read_are_named(fields: list[str]) -> None:
    with pytest.raises(FieldUnreadable, match=fields[0].partition("=")[0] or "=AA"):
        read_fields(fields, SCHEMA)


def test_a_backup_is_restored_and_audited(foretell: CommandLine, database: str, folder: Path) -> None:
    foretell("users", "add", "Ada", "--password-stdin", stdin="a good password\n")
    made = foretell("backup", "backup.tar.gz")
    assert made.code == 0
    assert made.out.startswith(f"{folder / 'backup.tar.gz'}: ")
    assert "In it: foretell.db, and 0 files of models." in made.out
    assert foretell("backup", "backup.tar.gz").code == 1
    foretell("users", "add", "Bob", "--password-stdin", stdin="a good password\n")
    restored = foretell("restore", "backup.tar.gz")
    assert restored.code == 0
    assert restored.out.endswith("All is right: every state, hold, charge and wallet fits.\n")
    assert [user["username"] for user in json.loads(foretell("users", "list", "--json").out)] == ["Ada"]
    (folder / "data" / "restore.json").write_text("[]")
    assert "A restore was broken off" in foretell("audit").error


@pytest.mark.parametrize(
    ("arguments", "at", "said"),
    [
        (["backup", "backup.tar"], "making.make", "Broken off. No backup was made"),
        (["restore", "backup.tar"], "restoring.restore", "Broken off. Run the command again"),
        (["migrate", "--to", "postgresql://db/x"], "moving.move", "Broken off. Run the command again"),
    ],
)
def test_ctrl_c_is_answered(
    foretell: CommandLine, database: str, monkeypatch: pytest.MonkeyPatch, arguments: list[str], at: str, said: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"foretell.cli.backups.{at}", interrupted)
    answer = foretell(*arguments)
    assert answer.code == 130
    assert said in answer.error


def test_an_installation_that_moved_does_not_go_on_by_mistake(
    foretell: CommandLine, database: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "data" / "moved.json").write_text('{"to": "db:5432/foretell"}')
    for arguments in (["users", "list"], ["up", "--detach"]):
        answer = foretell(*arguments)
        assert answer.code == 1
        assert "moved to db:5432/foretell: set FORETELL_DATABASE_URL" in answer.error
    answer = foretell("backup", "backup.tar")
    assert answer.code == 1
    assert "moved to db:5432/foretell" in answer.error
    assert not (folder / "backup.tar").exists()
    # Whoever names the old one has a reason.
    monkeypatch.setenv("FORETELL_DATABASE_URL", f"sqlite:///{folder / 'other.db'}")
    assert "There is no database at" in foretell("users", "list").error


def _named(group: typer.Typer) -> set[str]:
    """The commands of a group that are shown, as they are typed."""
    return {
        each.name or getattr(each.callback, "__name__", "").replace("_", "-")
        for each in group.registered_commands
        if not each.hidden
    }


@pytest.mark.parametrize("readme", ["README.md", "README.ru.md"])
def test_the_readme_names_every_command(readme: str) -> None:
    content = (Path(__file__).parents[3] / readme).read_text(encoding="utf-8")
    listed = set(re.findall(r"`([a-z]+)(?: [^`]*)?`", content))
    assert _named(app) - listed == set()
    for name, group in (("users", users_app), ("models", models_app)):
        found = re.search(rf"`{name} ([a-z|-]+)`", content)
        assert found is not None
        assert set(found[1].split("|")) == _named(group)
    for option in ("--version", "--install-completion"):
        assert f"foretell {option}`" in content


def test_the_installation_can_be_named(foretell: CommandLine, folder: Path, database: str) -> None:
    other = foretell("--data", "elsewhere", "users", "list")
    assert other.error.startswith(f"There is no database at {folder / 'elsewhere' / 'foretell.db'} yet.")
    assert foretell("--data", "data", "users", "list").code == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FORETELL_SIGNUP_CREDITS", "-5"),
        ("FORETELL_SECRET_KEY", "short"),
        ("FORETELL_ENVIRONMENT", "prod"),
        ("FORETELL_SWEEP_INTERVAL_S", "soon"),
        ("FORETELL_PRICES", "sentiment"),
    ],
)
def test_what_a_service_would_refuse_is_said_before_anything_is_started(
    foretell: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    answer = foretell("up", "--detach")
    assert answer.code == 1
    assert name in answer.error
    assert list((folder / "data" / "logs").glob("*")) == []


def test_every_service_of_a_start_has_settings_that_are_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAM_TOKEN", "123456:abcdefghijklmnopqrstuvwxyz")
    for name, value in (
        ("ENVIRONMENT", "production"),
        ("SECRET_KEY", secrets.token_hex()),
        ("MONITORING_TOKEN", secrets.token_hex()),
    ):
        monkeypatch.setenv(f"FORETELL_{name}", value)
    check_settings()
    monkeypatch.setenv("TELEGRAM_API_URL", "nowhere")
    with pytest.raises(Misconfigured, match="TELEGRAM_API_URL"):
        check_settings()
