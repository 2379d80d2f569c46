"""Rows in files: what a table's cells become, and what is said of files that can't be read."""

from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from foretell.inference.row_files import UnreadableRows, day_of, drawn, read_rows

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "whole": {"type": "integer"},
        "number": {"type": ["number", "null"]},
        "flag": {"type": "boolean"},
    },
}


def test_cells_of_a_table_become_what_the_schema_says(tmp_path: Path) -> None:
    file = tmp_path / "rows.CSV"
    file.write_bytes(
        b"\xef\xbb\xbfname,whole,number,flag,unknown\r\n"
        b'"a, b",3,2.5,true,x\r\n7,3.0,,False,\r\nc,3.5,NaN,maybe\r\n,no,1e3\r\n'
    )
    assert list(read_rows(file, SCHEMA)) == [
        {"name": "a, b", "whole": 3, "number": 2.5, "flag": True},
        {"name": "7", "whole": 3, "flag": False},
        # What does not fit stays as it is: the schema refuses it.
        {"name": "c", "whole": 3.5, "flag": "maybe"},
        {"whole": "no", "number": 1000.0},
    ]


def test_a_column_that_is_no_field_is_kept_when_it_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("name,unknown,when\na,x,2013-01-05\nb,y,\n")
    assert list(read_rows(file, SCHEMA, also="when")) == [{"name": "a", "when": "2013-01-05"}, {"name": "b"}]
    assert list(read_rows(file, SCHEMA, also="name")) == [{"name": "a"}, {"name": "b"}]


def test_the_day_of_a_date_or_a_moment(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    for text in ("2013-01-05", "2013-01-05 23:30:00", "2013-01-05T23:30:00.5Z", " 2013-01-05T23:30:00-05:00 "):
        assert day_of(text, "when", file) == date(2013, 1, 5)
    assert day_of(None, "when", file) is None
    for wrong in ("yesterday", "5.1.2013", 20_130_105.5, ["2013-01-05"]):
        with pytest.raises(UnreadableRows, match=r"when holds .* no date"):
            day_of(wrong, "when", file)


def test_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"name": "a", "more": [1]}\n\n{"name": null}\n')
    assert list(read_rows(file, SCHEMA)) == [{"name": "a", "more": [1]}, {"name": None}]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rows.parquet", b"PAR1", r"must end with \.csv"),
        ("rows.jsonl", b'{"a": 1}\n[1]\n', "line 2 is no JSON object"),
        ("rows.jsonl", b'{"a": \n', "line 1 is no JSON object"),
        ("rows.csv", b"name\n\xff\n", "decode"),
        ("absent.csv", None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UnreadableRows, match=reason):
        list(read_rows(file, SCHEMA))


def test_of_many_rows_some_are_drawn_from_everywhere() -> None:
    few, count = drawn(iter([{"x": 1}, {"x": 2}]), 10)
    assert (few, count) == ([{"x": 1}, {"x": 2}], 2)
    rows, count = drawn(({"x": number} for number in range(100_000)), 1000)
    assert (len(rows), count) == (1000, 100_000)
    tenths = Counter(row["x"] // 10_000 for row in rows)
    assert all(60 < tenths[tenth] < 140 for tenth in range(10))
    assert drawn(iter([]), 5) == ([], 0)
