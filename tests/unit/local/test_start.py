import argparse
import ast
import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foretell.kit.errors import ForetellError, Overloaded
from foretell.local.start import Start, command_of, menu, parse


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--start"], ["up", "--detach"]),
        (["--start", "--workers", "5"], ["up", "--detach", "--workers", "5"]),
        (["--start", "--engine", "docker"], ["up", "--detach", "--engine", "docker"]),
        (["--stop"], ["down"]),
        (["--stop", "--engine", "local"], ["down", "--engine", "local"]),
        (["--status"], ["status"]),
        (["--logs"], ["logs"]),
        (["--logs", "worker"], ["logs", "worker"]),
        (["--logs", "--follow"], ["logs", "--follow"]),
        (["--follow", "--logs", "app"], ["logs", "app", "--follow"]),
    ],
)
def test_what_is_promised_becomes_a_foretell_command(arguments: list[str], command: list[str]) -> None:
    assert command_of(parse(arguments)) == command


def test_everything_behind_test_is_for_pytest() -> None:
    options = parse(["--test", "-k", "audit", "--start", "tests/unit"])
    assert options.test
    assert not options.start
    assert options.pytest_arguments == ["-k", "audit", "--start", "tests/unit"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--start", "--stop"],
        ["--workers", "3"],
        ["--status", "--workers", "3"],
        ["--follow"],
        ["--start", "--workers", "many"],
        ["--engine", "podman", "--start"],
        ["start"],
        ["--sta"],
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--stop"], ["--status"], ["--logs"]])
def test_looking_at_nothing_installs_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORETELL_DATA_DIR", raising=False)
    start = Start(tmp_path, execute=lambda _: pytest.fail("there is nothing to run"))
    assert start.act(parse(arguments)) == 0
    assert "not set up" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


_SOURCE = Path(__file__).parents[3] / "src"


@pytest.fixture(scope="module")
def fresh_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout without .venv: the code alone, and docker-compose.yaml."""
    clone = tmp_path_factory.mktemp("clone")
    for package in ("kit", "local"):
        shutil.copytree(
            _SOURCE / "foretell" / package,
            clone / "src" / "foretell" / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copy(_SOURCE / "foretell" / "__init__.py", clone / "src" / "foretell")
    for file in ("start.py", "docker-compose.yaml"):
        shutil.copy(_SOURCE.parent / file, clone / file)
    return clone


@pytest.mark.parametrize("docker", ["", "exit 0", "echo Cannot connect to the Docker daemon >&2; exit 1"])
@pytest.mark.parametrize("arguments", [["--stop"], ["--status"], ["--logs"], ["--logs", "app", "--follow"]])
def test_a_fresh_clone_says_that_nothing_runs_without_any_package(
    arguments: list[str], docker: str, fresh_clone: Path, tmp_path: Path
) -> None:
    if docker:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{docker}\n")
        (tmp_path / "docker").chmod(0o755)
    done = subprocess.run(
        # -I -S: no packages of this Python either.
        [sys.executable, "-I", "-S", "-B", str(fresh_clone / "start.py"), *arguments],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.startswith("Foretell is not set up here yet, so nothing runs.")
    assert done.returncode == 0


def _imported(file: Path, *, everywhere: bool) -> Iterator[str]:
    """The modules that a file imports: at its top, or in its functions, too."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from foretell.local import ports` names a module, and `from foretell.kit.disk import is_full` does not.
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in inner if _file_of(name) is not None)
            yield node.module


def _file_of(module: str) -> Path | None:
    path = _SOURCE.joinpath(*module.split("."))
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


def test_what_runs_before_there_are_packages_is_standard_library_only() -> None:
    waiting, seen, foreign = [("foretell.local.start", "start.py")], set[str](), []
    while waiting:
        module, importer = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        file = _file_of(module)
        if file is None:
            if module.partition(".")[0] not in sys.stdlib_module_names:
                foreign.append(f"{importer} imports {module}")
            continue
        waiting += [(each, module) for each in _imported(file, everywhere=module == "foretell.local.start")]
    assert "foretell.local.compose" in seen
    assert foreign == []


Talk = Callable[[str], list[argparse.Namespace]]


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Type something into the menu, and see what it had done."""

    def type_in(text: str) -> list[argparse.Namespace]:
        done: list[argparse.Namespace] = []

        def act(options: argparse.Namespace) -> int:
            done.append(options)
            return 0

        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert menu(act) == 0
        return done

    return type_in


def test_the_menu_does_each_thing(talk: Talk) -> None:
    done = talk("1\n2\nstatus\nlogs\nworker\n5\n4\nquit\n")
    assert [command_of(options) for options in done] == [
        ["up", "--detach"],
        ["down"],
        ["status"],
        ["logs", "worker", "--follow"],
        ["up", "--detach", "--workers", "4"],
    ]


@pytest.mark.parametrize(
    "text", ["", "6\n", "q\n", "\n\n\n", "9\n--start\n\x00\n", "scale\nmany\n", "scale\n-1\n", "logs\n"]
)
def test_the_menu_survives_nonsense_and_the_end_of_its_input(talk: Talk, text: str) -> None:
    assert talk(text) == []


def test_the_menu_goes_on_after_an_error_and_after_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors: list[BaseException] = [Overloaded(), KeyboardInterrupt(), ForetellError("the disk is full")]
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n1\n1\n6\n"))

    def act(_: argparse.Namespace) -> int:
        raise errors.pop(0)

    assert menu(act) == 0
    assert errors == []
    assert "the disk is full" in capsys.readouterr().out
