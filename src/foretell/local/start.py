"""The main part of `start.py`, after the check of Python's version. Standard library only."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from foretell.kit.errors import ForetellError
from foretell.local.page import Page
from foretell.local.virtual_environment import RUNTIME_LOCK, TEST_LOCK, VirtualEnvironment

ROOT = Path(__file__).resolve().parents[3]
_INTERRUPTED = 130
#: More processes than cores, since tests wait much; each file in one process, in the order of `tests/order.py`.
_TESTING = ("-n", "5", "--dist", "loadfile", "--no-loadscope-reorder", "--durations=10")

#: Runs a command in place of this process, or (in the menu) below it, and returns its exit status.
Execute = Callable[[list[str]], int]


def say(text: str) -> None:
    """Print one sentence about the progress."""
    print(text, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Everything after `--test` is passed to pytest."""
    arguments = list(arguments)
    pytest_arguments: list[str] = []
    if "--test" in arguments:
        position = arguments.index("--test")
        arguments, pytest_arguments = arguments[: position + 1], arguments[position + 1 :]
    parser = argparse.ArgumentParser(
        prog="start.py",
        description="Start, watch and stop Foretell. Without arguments: a menu.",
        epilog="Settings come from the environment (FORETELL_APP_PORT, FORETELL_DATABASE_URL, FORETELL_BROKER_URL …).",
        allow_abbrev=False,
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--start", action="store_true", help="start everything, or scale with another --workers")
    action.add_argument("--stop", action="store_true", help="stop everything")
    action.add_argument("--status", action="store_true", help="show what runs")
    action.add_argument("--logs", nargs="?", const="", metavar="SERVICE", help="show the logs, of all or of one")
    action.add_argument("--test", action="store_true", help="run the tests; what follows goes to pytest")
    parser.add_argument("--workers", type=int, metavar="N", help="with --start: how many ML workers (3 at first)")
    parser.add_argument("--follow", action="store_true", help="with --logs: go on until Ctrl-C")
    parser.add_argument("--engine", choices=("local", "docker"), help="processes of this machine, or Docker Compose")
    options = parser.parse_args(arguments)
    options.pytest_arguments = pytest_arguments
    if options.workers is not None and not options.start:
        parser.error("--workers goes with --start")
    if options.follow and options.logs is None:
        parser.error("--follow goes with --logs")
    return options


def command_of(options: argparse.Namespace) -> list[str]:
    """The same as arguments of the `foretell` command."""
    engine = ["--engine", options.engine] if options.engine else []
    if options.start:
        return ["up", "--detach", *([] if options.workers is None else ["--workers", str(options.workers)]), *engine]
    if options.stop:
        return ["down", *engine]
    if options.status:
        return ["status", *engine]
    return ["logs", *([options.logs] if options.logs else []), *(["--follow"] if options.follow else []), *engine]


class Start:
    """Sets up what an action needs and runs it."""

    def __init__(self, root: Path = ROOT, *, execute: Execute) -> None:
        self._root = root
        self._environment = VirtualEnvironment(root, say)
        self._execute = execute

    def act(self, options: argparse.Namespace) -> int:
        """Do what the options say; returns the exit status."""
        if options.test:
            self._environment.ensure(TEST_LOCK)
            return self._run("-m", "pytest", *_TESTING, *options.pytest_arguments)
        if options.start:
            if self._set_up(options) and self._may_run():
                say("If Foretell runs already, it still has the packages of before: --stop and --start to renew it.")
        elif not self._environment.usable():
            # Without an installation there is nothing to show or to stop.
            if options.engine != "docker" and not self._may_run() and not _containers_run(self._root):
                print("Foretell is not set up here yet, so nothing runs. Start it: python start.py --start")
                return 0
            self._environment.ensure(RUNTIME_LOCK)
        return self._run("-P", "-m", "foretell.cli", *command_of(options))

    def _set_up(self, options: argparse.Namespace) -> bool:
        """Install the packages and build the page; returns whether packages were installed."""
        if options.engine == "docker":
            # The images contain the page.
            return self._environment.ensure(RUNTIME_LOCK)
        page = Page(self._root, say)
        page.begin()
        try:
            renewed = self._environment.ensure(RUNTIME_LOCK)
            page.end()
        except BaseException:
            page.give_up()
            raise
        return renewed

    def _may_run(self) -> bool:
        data_dir = Path(os.environ.get("FORETELL_DATA_DIR") or self._root / "data")
        return (data_dir / "run").exists()

    def _run(self, *arguments: str) -> int:
        return self._execute([str(self._environment.python), *arguments])


_MENU = """
  1  start
  2  stop
  3  status
  4  logs (Ctrl-C leads back here)
  5  scale the workers
  6  quit
"""


def _containers_run(root: Path) -> bool:
    """Whether this checkout runs with Docker Compose."""
    from foretell.local.compose import Compose

    return Compose(root).running()


def menu(act: Callable[[argparse.Namespace], int], engine: str | None = None) -> int:
    """Show the menu until the user quits. Invalid input, errors and Ctrl-C do not end it; the end of the input does.

    Actions use `engine`; without one, the running engine, and a start is local.
    """
    choices = {"1": "start", "2": "stop", "3": "status", "4": "logs", "5": "scale", "6": "quit"}
    while True:
        try:
            print(_MENU)
            answer = input("What next? ").strip().lower()
            choice = choices.get(answer, answer)
            if choice in ("quit", "q", "exit"):
                return 0
            arguments = _arguments_for(choice)
            if arguments:
                act(parse([*arguments, *(["--engine", engine] if engine else [])]))
            elif answer and choice != "scale":
                print(f"{answer[:40]!r} is not in the menu: give a number from 1 to 6, or a word.")
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:
            print()
        except ForetellError as error:
            print(error.message)


def _arguments_for(choice: str) -> list[str] | None:
    if choice in ("start", "stop", "status"):
        return [f"--{choice}"]
    if choice == "logs":
        service = input("Which service? (empty: all) ").strip()
        return ["--logs", *([service] if service and not service.startswith("-") else []), "--follow"]
    if choice == "scale":
        number = input("How many workers? ").strip()
        if number.isdecimal():
            return ["--start", "--workers", number]
        print("That is not a number.")
    return None


def _replace_process(command: list[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)  # noqa: S606 - the Python of our own .venv


def _run_below(command: list[str]) -> int:
    child = subprocess.Popen(command)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            # The terminal also sent Ctrl-C to the child, which reports how it ends.
            continue


def main(arguments: Sequence[str]) -> int:
    """Everything that `start.py` does; returns its exit status."""
    try:
        options = parse(arguments)
        # A relative folder refers to the caller's current folder, so make it absolute.
        if os.environ.get("FORETELL_DATA_DIR"):
            os.environ["FORETELL_DATA_DIR"] = os.path.abspath(os.environ["FORETELL_DATA_DIR"])
        os.chdir(ROOT)
        if options.start or options.stop or options.status or options.test or options.logs is not None:
            return Start(execute=_replace_process).act(options)
        return menu(Start(execute=_run_below).act, options.engine)
    except ForetellError as error:
        say(error.message)
        return 1
    except KeyboardInterrupt:
        say("\nBroken off.")
        return _INTERRUPTED
    except OSError as error:
        say(f"The system refused something: {error}.")
        return 1
