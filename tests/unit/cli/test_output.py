"""Tables of the command line on terminals of any width."""

from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from foretell.cli.output import show, table

ROW = ["ml_worker", "worker-1-3f9a2c", "healthy", "2:15:00", "0.1.0", "http://127.0.0.1:28731"]
COLUMNS = ["service", "instance", "state", "for", "version", "address"]


def shown(width: int) -> str:
    terminal = Console(width=width, file=StringIO(), force_terminal=True, color_system=None)
    made = table(COLUMNS)
    made.add_row(*map(Text, ROW))
    show(made, terminal)
    assert isinstance(terminal.file, StringIO)
    return terminal.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 120])
def test_every_value_is_whole_on_any_terminal(width: int) -> None:
    text = shown(width)
    assert all(value in text for value in ROW)
    assert max(map(len, text.splitlines())) <= width


def test_a_wide_terminal_has_a_table_and_a_narrow_one_a_line_for_each_column() -> None:
    assert len(shown(120).strip().splitlines()) == 3
    assert [line.split() for line in shown(60).strip().splitlines()] == [
        [name, value] for name, value in zip(COLUMNS, ROW, strict=True)
    ]
