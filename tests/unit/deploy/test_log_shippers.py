"""The configurations of Filebeat and Vector have what they need, and speak of fields that our lines have."""

import io
import json
import re
from typing import Any

import pytest
import yaml
from tests.deployed import DEPLOY

from foretell.kit import logs


@pytest.fixture
def filebeat() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "filebeat" / "filebeat.yml").read_text())
    return read


@pytest.fixture
def vector() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "vector" / "vector.yaml").read_text())
    return read


@pytest.fixture
def line() -> dict[str, Any]:
    """A line as a service writes it."""
    encode = logs._line_of("app", "app-1")
    read: dict[str, Any] = json.load(io.BytesIO(encode(None, "info", {"event": "something_happened"})))
    return read


def test_filebeat_takes_lines_as_they_are(filebeat: dict[str, Any]) -> None:
    inputs = filebeat["filebeat.inputs"]
    assert len({each["id"] for each in inputs}) == len(inputs)
    # Taken twice, lines would stand there twice.
    assert sum(each.get("enabled", True) for each in inputs) == 1
    for each in inputs:
        assert each["type"] == "filestream"
        assert each["paths"]
        (ndjson,) = [parser["ndjson"] for parser in each["parsers"] if "ndjson" in parser]
        assert ndjson == {"target": "", "expand_keys": True, "overwrite_keys": True, "add_error_key": True}
    assert filebeat["output.elasticsearch"]["hosts"]


def test_filebeat_drops_no_line_of_ours(filebeat: dict[str, Any], line: dict[str, Any]) -> None:
    (processor,) = filebeat["processors"]
    needed = processor["drop_event"]["when"]["not"]["has_fields"]
    assert set(needed) <= line.keys()


def test_expanded_keys_collide_with_none_of_ours(line: dict[str, Any]) -> None:
    # "log.level" beside "log" could not both stand in one document.
    assert not {name.partition(".")[0] for name in line if "." in name} & line.keys()


def test_vector_leads_every_line_to_loki(vector: dict[str, Any], line: dict[str, Any]) -> None:
    parts = {**vector["sources"], **vector["transforms"], **vector["sinks"]}
    for each in (*vector["transforms"].values(), *vector["sinks"].values()):
        assert set(each["inputs"]) <= parts.keys()
    (transform,) = vector["transforms"].values()
    asked = re.findall(r'get!\(line, \["([^"]+)"\]\)', transform["source"])
    assert asked
    assert set(asked) <= line.keys()


def test_loki_gets_few_streams(vector: dict[str, Any]) -> None:
    sink = vector["sinks"]["loki"]
    assert sink["type"] == "loki"
    assert sink["endpoint"]
    assert sink["encoding"] == {"codec": "text"}
    assert sink["labels"] == {"job": "foretell", "service": "{{ service }}", "level": "{{ level }}"}
    (transform,) = vector["transforms"].values()
    for name in ("service", "level"):
        assert f".{name} =" in transform["source"]
