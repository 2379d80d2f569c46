"""Inline keyboards: the buttons of a message."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

#: The largest size of a button's data, in bytes.
_MOST_BYTES = 64
_COLUMNS = 2
_WIDE = 20


class Button(NamedTuple):
    """One button. `text` is plain text."""

    text: str
    data: str = ""
    url: str = ""


class Keyboard:
    """Rows of buttons."""

    def __init__(self, rows: Sequence[Sequence[Button]]) -> None:
        self.rows = [list(row) for row in rows if row]
        assert all(len(each.data.encode()) <= _MOST_BYTES for row in self.rows for each in row)

    def markup(self) -> dict[str, Any]:
        """The keyboard in the format of the Bot API."""
        return {
            "inline_keyboard": [
                [
                    {"text": each.text, **({"url": each.url} if each.url else {"callback_data": each.data})}
                    for each in row
                ]
                for row in self.rows
            ]
        }


def paged(buttons: Sequence[Button], page: int, turn: Callable[[int], str], *, size: int) -> list[list[Button]]:
    """One page of many buttons, with buttons to the other pages; `turn` makes their data."""
    pages = max(1, -(-len(buttons) // size))
    page = min(max(page, 0), pages - 1)
    shown = buttons[page * size : (page + 1) * size]
    columns = 1 if any(len(each.text) > _WIDE for each in shown) else _COLUMNS
    rows = [list(shown[start : start + columns]) for start in range(0, len(shown), columns)]
    if pages > 1:
        turns = [Button("◀", turn(page - 1))] if page > 0 else []
        turns.append(Button(f"{page + 1} / {pages}", turn(page)))
        turns += [Button("▶", turn(page + 1))] if page < pages - 1 else []
        rows.append(turns)
    return rows
