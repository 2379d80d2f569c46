"""The names in our log lines fit the Elastic Common Schema: none is a word that stands for an object there."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from foretell.kit.logs import ECS_NAMES

SOURCES = Path(__file__).resolve().parents[2] / "src" / "foretell"
_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "bind", "bind_contextvars"}
#: The field sets of the schema, at the root of a document. A text under one of these names, beside lines of others that
#: have an object there, is refused by Elasticsearch.
FIELD_SETS = frozenset({
    "agent", "as", "client", "cloud", "code_signature", "container", "data_stream", "destination", "device", "dll",
    "dns", "ecs", "elf", "email", "entity", "error", "event", "faas", "file", "gen_ai", "geo", "group", "hash",
    "host", "http", "interface", "labels", "log", "macho", "network", "observer", "orchestrator", "organization",
    "os", "package", "pe", "process", "registry", "related", "risk", "rule", "server", "service", "source", "span",
    "threat", "tls", "trace", "transaction", "url", "user", "user_agent", "vlan", "volume", "vulnerability", "x509",
})  # fmt: skip
#: And what the line itself says.
OURS = {"message", "tags", "timestamp", "@timestamp"}


def names_in(source: str) -> Iterator[tuple[int, str]]:
    """The names that are given to the calls of a logger, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr not in _METHODS or "log" not in ast.unparse(node.func.value):
            continue
        for keyword in node.keywords:
            if keyword.arg is not None:
                yield node.lineno, keyword.arg
            elif isinstance(keyword.value, ast.Dict):
                for key in keyword.value.keys:
                    if isinstance(key, ast.Constant):
                        yield node.lineno, str(key.value)


def collisions(source: str) -> list[tuple[int, str]]:
    return [(line, name) for line, name in names_in(source) if name in FIELD_SETS | OURS]


def test_no_name_in_a_log_line_is_a_field_set_of_the_schema() -> None:
    found = {
        str(file.relative_to(SOURCES)): wrong
        for file in SOURCES.rglob("*.py")
        if (wrong := collisions(file.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_names_with_a_dot_belong_to_the_schema() -> None:
    dotted = {
        name for file in SOURCES.rglob("*.py") for _, name in names_in(file.read_text(encoding="utf-8")) if "." in name
    } | set(ECS_NAMES.values())
    assert {name.partition(".")[0] for name in dotted} <= FIELD_SETS


@pytest.mark.parametrize(
    "planted", ["log.info('a', host=1)", "log.bind(**{'error': 1}).info('a')", "log.error('a', message=1)"]
)
def test_a_planted_collision_is_found(planted: str) -> None:
    assert len(collisions(planted)) == 1
