"""What a package's reference.json may say, and what is said when it can't be used."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from foretell.inference.reference import (
    Categories,
    Field,
    NotCompared,
    Numbers,
    Reference,
    ReferenceBroken,
    not_compared,
    read_reference,
    write_reference,
)
from foretell.inference.registry import Registry, shipped_folder


def write(folder: Path, content: Any) -> Path:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / "reference.json").write_bytes(text)
    return folder


def numbers(**changed: Any) -> dict[str, Any]:
    return {"rows": 3, "features": {"x": {"kind": "numeric", "edges": [0, 1, 2], "counts": [1, 2], **changed}}}


@pytest.mark.parametrize("name", ["flight_delay", "sentiment"])
def test_those_that_ship_can_be_read(name: str) -> None:
    reference = read_reference(shipped_folder() / name)
    assert reference is not None
    content = (shipped_folder() / name / "reference.json").read_bytes()
    assert reference.sha256 == hashlib.sha256(content).hexdigest()
    package = next(each for each in Registry.discover(shipped_folder()) if each.path.name == name)
    assert set(reference.features) == set(package.features_schema["properties"])
    for field in (*reference.features.values(), *reference.outputs.values()):
        counts = field.counts if isinstance(field, Numbers) else field.counts.values()
        assert sum(counts) == reference.rows


def test_a_package_may_have_none(tmp_path: Path) -> None:
    assert read_reference(tmp_path) is None


def test_what_it_may_say(tmp_path: Path) -> None:
    content = numbers(of="length", missing=2, usual_psi=0.5)
    content["outputs"] = {"y": {"kind": "categorical", "counts": {"a": 1, "b": 0}, "other": 4}}
    content["remark"] = "fields that we don't know are the maker's own business"
    reference = read_reference(write(tmp_path, content))
    assert reference is not None
    assert reference.features == {"x": Numbers([0.0, 1.0, 2.0], [1, 2], of="length", missing=2, usual_psi=0.5)}
    assert reference.outputs == {"y": Categories({"a": 1, "b": 0}, other=4)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "truncated"),
        (b"\xff", "malformed"),
        ([], "object"),
        ({"features": {}}, "rows"),
        ({"rows": 0, "features": {}}, ">= 1"),
        (numbers(kind="picture"), "picture"),
        (numbers(edges=[0, 1]), "x has 2 counts, so it must have 3 edges"),
        (numbers(edges=[0, 2, 2]), "x has edges that don't grow"),
        (b'{"rows": 3, "features": {"x": {"kind": "numeric", "edges": [0, 1e999], "counts": [1]}}}', "out of range"),
        (numbers(counts=[1, -2]), ">= 0"),
        (numbers(counts=[0, 0]), "x has counted nothing"),
        (numbers(counts=[], edges=[0]), "x must have 1 to 1000 bins"),
        (numbers(of="colour"), "colour"),
        (numbers(usual_psi=-1), ">= 0"),
        ({"rows": 1, "features": {str(n): {"kind": "categorical", "counts": {"a": 1}} for n in range(501)}}, "500"),
    ],
)
def test_one_that_cannot_be_used_says_why(tmp_path: Path, content: Any, reason: str) -> None:
    with pytest.raises(ReferenceBroken, match="(?i)" + reason) as caught:
        read_reference(write(tmp_path, content))
    assert "reference.json" in caught.value.message


def test_a_field_that_was_never_there_can_be_written_and_read(tmp_path: Path) -> None:
    write_reference(tmp_path, Reference(3, {"x": Categories({}, missing=3)}))
    reference = read_reference(tmp_path)
    assert reference is not None
    assert reference.features == {"x": Categories({}, missing=3)}


def test_what_is_not_compared_is_named_with_the_reason() -> None:
    inner = {"type": "object", "properties": {"a": {}, "b": {}}}
    features = {"properties": {"x": {}, "new": {}, "inner": inner, "free": {"type": "object"}, "old": {}, "list": {}}}
    output = {"properties": {"label": {}, "chance": {}}}
    known: Field = Categories({"a": 3})
    wide = Numbers([3.5, 10.5], [3], mean=7.0, std=0.0)
    narrow = Numbers([7 - 7e-6, 7 + 7e-6], [3], mean=7.0, std=0.0)
    reference = Reference(3, {"x": known, "inner.a": known, "free.any": known, "old": wide}, {"label": narrow})
    lacks = "The reference lacks it."
    again = "It had one value only, and its bin holds others, too: make the reference anew."
    assert not_compared(reference, features, output) == [
        NotCompared("new", "feature", lacks),
        NotCompared("inner.b", "feature", lacks),
        NotCompared("list", "feature", lacks),
        NotCompared("old", "feature", again),
        NotCompared("chance", "output", lacks),
    ]


@pytest.mark.parametrize("name", ["flight_delay", "sentiment"])
def test_of_those_that_ship_everything_is_compared(name: str) -> None:
    package = next(each for each in Registry.discover(shipped_folder()) if each.path.name == name)
    reference = read_reference(package.path)
    assert reference is not None
    assert not_compared(reference, package.features_schema, package.output_schema) == []
