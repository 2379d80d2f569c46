"""Output of the command line."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader of the output has gone (`| head`): continue without it, so that a start is not aborted."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


console = _Console(highlight=False)
#: For progress and remarks, so that the result of a command can be piped.
remarks = _Console(stderr=True, highlight=False)


def exit_code(healthy: Sequence[bool]) -> int:
    """The exit status of `status`: 0 if all are healthy, 1 if not, and 3, as in systemctl, if nothing runs."""
    if not healthy:
        return 3
    return 0 if all(healthy) else 1


def say(text: str) -> None:
    """Print one line of the result, without markup and wrapping."""
    console.print(text, markup=False, soft_wrap=True)


def remark(text: str) -> None:
    """Print one remark. Never fails, so that a closed terminal does not prevent clean-up."""
    with suppress(OSError):
        remarks.print(text, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print the result for programs."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")


def table(columns: Iterable[str], *, right: Iterable[str] = ()) -> Table:
    """An empty table; the columns in `right` are aligned there."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def show(made: Table, on: Console | None = None) -> None:
    """Print a table in the width of the terminal, or in its full width if the output is not a terminal.

    If the terminal is too narrow, each row is a paragraph with a line for each column.
    """
    on = on or console
    if on.is_terminal:
        if _least_width(made) <= on.width:
            on.print(made)
        else:
            _show_as_paragraphs(made, on)
        return
    widest = Console(width=10_000).measure(made).maximum
    Console(width=widest, highlight=False).print(made)


def _least_width(made: Table) -> int:
    """The least width of a table without broken words, in characters."""
    words = [
        max((len(word) for cell in (column.header, *column.cells) for word in str(cell).split()), default=0)
        for column in made.columns
    ]
    return sum(words) + 2 * len(words)


def _show_as_paragraphs(made: Table, on: Console) -> None:
    names = [str(column.header) for column in made.columns]
    width = max(map(len, names))
    for row in zip(*(column.cells for column in made.columns), strict=True):
        for name, cell in zip(names, row, strict=True):
            value = on.render_str(cell) if isinstance(cell, str) else cell
            line = Table.grid(padding=(0, 2))
            line.add_column(width=width)
            line.add_column(overflow="fold")
            line.add_row(name, value)
            on.print(line)
        on.print()


def duration(seconds: float) -> str:
    """`12 s`, `3:05`, `2:00:00`, `1 day, 2:00:00`."""
    if seconds < 60:
        return f"{int(seconds)} s"
    text = str(timedelta(seconds=int(seconds)))
    return text.removeprefix("0:").removeprefix("0")


def count(number: int, noun: str) -> str:
    """`1 worker`, `3 workers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
