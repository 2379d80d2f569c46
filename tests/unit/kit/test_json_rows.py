"""Large lists are parsed in parts."""

from collections.abc import Callable

import msgspec
import pytest

from foretell.kit.json_rows import decode_fields, decode_outside, decode_rows, decode_whole
from foretell.kit.problems import MalformedBody


@pytest.mark.parametrize("body", [b'[{"a":[1]},null,"x"]', bytearray(b' [ {"a":[1]} , null,"x" ] ')])
def test_the_items_of_a_list_are_parsed_later(body: bytes | bytearray) -> None:
    rows = decode_outside(body)
    assert [type(row) for row in rows] == [msgspec.Raw] * 3
    assert decode_rows(rows[:2]) == [{"a": [1]}, None]
    assert decode_rows(rows[2:]) == ["x"]


@pytest.mark.parametrize(("body", "value"), [(b'{"a":[1]}', {"a": [1]}), (b"3", 3), (b'"x"', "x"), (b"[]", [])])
def test_other_values_are_parsed_at_once(body: bytes, value: object) -> None:
    assert decode_outside(body) == value


def test_the_fields_of_an_object_are_parsed_later() -> None:
    fields = decode_fields(b'{"features":[1,2]}')
    assert fields is not None
    assert decode_rows(decode_outside(fields["features"])) == [1, 2]
    assert decode_fields(b"[1]") is None


@pytest.mark.parametrize("body", [b"[1,", b"\0", b'{"a":1}x', b"[" * 100_000])
@pytest.mark.parametrize("decode", [decode_outside, decode_whole])
def test_what_is_not_json_is_refused(decode: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(MalformedBody):
        decode(body)


@pytest.mark.parametrize("body", [b'{"a":', b"\0", b'{"a":1}x', b'{"a":' + b"[" * 100_000])
def test_fields_of_what_is_not_json_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        decode_fields(body)


def test_a_row_that_is_not_utf8_is_refused() -> None:
    rows = decode_outside(b'["\xff"]')
    with pytest.raises(MalformedBody):
        decode_rows(rows)


def test_values_stay_as_they_are() -> None:
    assert decode_rows([{"a": 1}]) == [{"a": 1}]
    assert decode_rows([]) == []
