"""What msgspec finds wrong, as fields and plain words."""

from typing import Annotated, Any

import msgspec
import pytest

from foretell.kit.misfits import misfit_of


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    webhook: str


class _Whole(msgspec.Struct, forbid_unknown_fields=True):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    part: _Part | None = None
    parts: list[_Part] = []
    weights: dict[str, float] = {}
    counts: dict[int, int] = {}


@pytest.mark.parametrize(
    ("value", "pointer", "detail"),
    [
        ({}, "#/model", "is missing"),
        ({"model": 5}, "#/model", "must be a text, not a whole number"),
        ({"model": ""}, "#/model", "must be a text of length >= 1"),
        ({"model": "m", "zzz": 1}, "#/zzz", "is not a known field"),
        ({"model": "m", "a/b": 1}, "#/a~1b", "is not a known field"),
        ({"model": "m", "part": {}}, "#/part/webhook", "is missing"),
        ({"model": "m", "part": 5}, "#/part", "must be an object or null, not a whole number"),
        ({"model": "m", "parts": [{"webhook": ""}, {"x": 1}]}, "#/parts/1/x", "is not a known field"),
        ({"model": "m", "parts": [{"webhook": None}]}, "#/parts/0/webhook", "must be a text, not null"),
        ({"model": "m", "weights": {"a": "b"}}, "#/weights", "must be a number, not a text"),
        ({"model": "m", "counts": {"a": 1}}, "#/counts", "must be a whole number, not a text"),
        ([], "#", "must be an object, not a list"),
    ],
)
def test_a_misfit_has_the_place_and_plain_words(value: Any, pointer: str, detail: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(msgspec.json.encode(value), type=_Whole)
    assert misfit_of(caught.value).problem == {"detail": detail, "pointer": pointer}
    assert misfit_of(caught.value, 3).problem["pointer"] == "#/3" + pointer.removeprefix("#")


def test_the_field_is_written_as_in_a_file() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert([1, "x"], list[int])
    misfit = misfit_of(caught.value, "weights", "1.0.0")
    assert misfit.sentence == 'weights."1.0.0"[1] must be a whole number, not a text'
