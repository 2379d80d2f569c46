"""Where the command line writes to."""

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
        """Whoever read our output has heard enough (`| head`): go on without them, not end in the middle of a start."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


console = _Console(highlight=False)
#: For progress and remarks, so that what a command answers can be piped.
remarks = _Console(stderr=True, highlight=False)


def exit_code(healthy: Sequence[bool]) -> int:
    """How `status` ends: 0 when all is well, 1 when it is not, and 3, as systemctl has it, when nothing runs."""
    if not healthy:
        return 3
    return 0 if all(healthy) else 1


def say(text: str) -> None:
    """One line of the answer, as it is: nothing in it is markup, and nothing is wrapped."""
    console.print(text, markup=False, soft_wrap=True)


def remark(text: str) -> None:
    """One line beside the answer. A terminal that is gone must not keep us from cleaning up."""
    with suppress(OSError):
        remarks.print(text, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """The answer for programs."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")


def table(columns: Iterable[str], *, right: Iterable[str] = ()) -> Table:
    """An empty table; the columns in `right` are aligned there."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def show(made: Table, on: Console | None = None) -> None:
    """Print a table as wide as the terminal, or as wide as it needs where the output is no terminal.

    On a terminal that is too narrow for it, each row is a paragraph with a line for each column.
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
    """How wide a table must be so that no word is broken, in characters."""
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
