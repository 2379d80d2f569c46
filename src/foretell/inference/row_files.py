"""Reads rows from files: CSV with a header line, and JSON Lines."""

import csv
import random
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, TextIO

import msgspec

from foretell.kit import structs
from foretell.kit.errors import ForetellError

Row = dict[str, Any]

_NONE = ("", "null", "NULL", "NA", "NaN", "nan")
_TRUTH = {
    "true": True,
    "True": True,
    "TRUE": True,
    "1": True,
    "false": False,
    "False": False,
    "FALSE": False,
    "0": False,
}


#: The largest input of a prediction.
_LONGEST_LINE = 1024 * 1024


class UnreadableRows(ForetellError):
    """The rows in {file} can't be read: {reason}."""

    code = "unreadable_rows"


def read_rows(file: Path, schema: Mapping[str, Any], also: str | None = None) -> Iterator[Row]:
    """The rows of a .csv, .jsonl or .ndjson file, one by one. Raises `UnreadableRows`.

    CSV has only texts: `schema`, the schema of a row, gives their types. Columns that are not in the schema are left
    out, except `also`; so are empty cells.
    """
    suffix = file.suffix.lower()
    if suffix not in (".csv", ".jsonl", ".ndjson"):
        raise UnreadableRows(file=file, reason="its name must end with .csv, .jsonl or .ndjson")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if suffix == ".csv":
                known: Mapping[str, Any] = schema.get("properties", {})
                properties = known if also is None else {also: {}, **known}
                for cells in csv.DictReader(_bounded(lines, file)):
                    yield {
                        name: _typed(text, properties[name])
                        for name, text in cells.items()
                        if name in properties and text is not None and text.strip() not in _NONE
                    }
            else:
                for number, line in enumerate(_bounded(lines, file), 1):
                    if line.strip():
                        yield _decoded(line, number, file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnreadableRows(file=file, reason=str(error)) from error


def _bounded(lines: TextIO, file: Path) -> Iterator[str]:
    """The lines of a file. Raises `UnreadableRows` for a line that is too long."""
    number = 0
    while line := lines.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE:
            raise UnreadableRows(file=file, reason=f"line {number} has more than {_LONGEST_LINE} characters")
        yield line


def drawn(rows: Iterator[Row], most: int) -> tuple[list[Row], int]:
    """A random sample of at most `most` rows, and the number of all rows."""
    source = random.Random(0)  # noqa: S311 - the same rows of the same file, no secret
    kept: list[Row] = []
    number = 0
    for number, row in enumerate(rows, 1):
        if len(kept) < most:
            kept.append(row)
        elif (place := source.randrange(number)) < most:
            kept[place] = row
    return kept, number


def day_of(value: Any, column: str, file: Path) -> date | None:
    """The day of a date or time in ISO 8601, in its own zone. Raises `UnreadableRows`."""
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value.strip()).date()
    except (ValueError, AttributeError):
        reason = f"{column} holds {value!r}, which is no date or moment like 2024-05-31 or 2024-05-31T12:00:00Z"
        raise UnreadableRows(file=file, reason=reason) from None


def _decoded(line: str, number: int, file: Path) -> Row:
    try:
        return structs.decode(line, Row)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnreadableRows(file=file, reason=f"line {number} is no JSON object: {error}") from None


def _typed(text: str, about: Mapping[str, Any]) -> Any:
    """A cell converted to the type in its schema; if that is impossible, the text, so that the schema refuses it."""
    kinds = about.get("type", "string")
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        try:
            if kind == "integer":
                # If values are missing, tables write whole numbers as 9.0.
                number = float(text)
                return (
                    int(text) if text.strip().lstrip("+-").isdigit() else int(number) if number.is_integer() else number
                )
            if kind == "number":
                return float(text)
        except ValueError:
            continue
        if kind == "boolean" and text.strip() in _TRUTH:
            return _TRUTH[text.strip()]
    return text
