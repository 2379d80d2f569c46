"""A server with Elasticsearch's `_bulk` that is as strict as an index template: what does not fit in is refused.

Elasticsearch and Filebeat can't be had here. This keeps what their documentation says of mappings, of dynamic templates
and of data streams, for the types that deploy/filebeat/index-template.json uses; and where Elasticsearch would turn a
value into another type, it is refused as well.
"""

import ipaddress
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx


class Refused(Exception):
    """What Elasticsearch says of a document that does not fit."""


def expanded(line: dict[str, Any]) -> dict[str, Any]:
    """What Filebeat's ndjson parser makes of a line with `expand_keys`: {"a.b": 1} becomes {"a": {"b": 1}}."""
    document: dict[str, Any] = {}
    for name, value in line.items():
        *path, last = name.split(".")
        place = document
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise Refused(f"cannot expand {name!r}: found conflicting key")
        value = expanded(value) if isinstance(value, dict) else value
        if isinstance(place.get(last), dict) and isinstance(value, dict):
            place[last].update(value)
        elif last in place:
            raise Refused(f"cannot expand {name!r}: found conflicting key")
        else:
            place[last] = value
    return document


_STRINGS = ("keyword", "match_only_text", "wildcard")


@dataclass
class Index:
    """A data stream with the template's mapping, and what documents have added to it."""

    template: dict[str, Any]
    documents: list[dict[str, Any]] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._add_types(self.template["template"]["mappings"]["properties"], "")

    def _add_types(self, properties: dict[str, Any], before: str) -> None:
        for name, mapping in properties.items():
            if "properties" in mapping:
                self.types[f"{before}{name}"] = "object"
                self._add_types(mapping["properties"], f"{before}{name}.")
            else:
                self.types[f"{before}{name}"] = mapping["type"]

    def add(self, document: dict[str, Any]) -> None:
        """Raises `Refused`."""
        if "@timestamp" not in document:
            raise Refused("data stream timestamp field [@timestamp] is missing")
        known = dict(self.types)
        try:
            self._check_object(document, "")
            limit = self.template["template"]["settings"]["index.mapping.total_fields.limit"]
            if len(self.types) > limit:
                raise Refused(f"Limit of total fields [{limit}] has been exceeded")
        except Refused:
            self.types = known
            raise
        self.documents.append(document)

    def _check_object(self, value: dict[str, Any], path: str) -> None:
        for name, inner in value.items():
            if not name:
                raise Refused(f"field name cannot be an empty string in {path!r}")
            self._check(inner, f"{path}{name}")

    def _check(self, value: Any, path: str) -> None:
        if value is None:
            return
        if isinstance(value, list):
            for each in value:
                self._check(each, path)
            return
        kind = self.types.get(path)
        if kind is None:
            kind = self.types[path] = self._dynamic(value, path)
        if kind == "object":
            if not isinstance(value, dict):
                raise Refused(f"object mapping for [{path}] tried to parse field as object, but found a concrete value")
            self._check_object(value, f"{path}.")
        elif not _fits(value, kind):
            raise Refused(f"failed to parse field [{path}] of type [{kind}]: {str(value)[:80]!r}")

    def _dynamic(self, value: Any, path: str) -> str:
        found = (
            "boolean" if isinstance(value, bool)
            else "long" if isinstance(value, int)
            else "double" if isinstance(value, float)
            else "object" if isinstance(value, dict)
            else "string"
        )  # fmt: skip
        for rule in self.template["template"]["mappings"]["dynamic_templates"]:
            ((_, each),) = rule.items()
            wanted = each["match_mapping_type"]
            if found in (wanted if isinstance(wanted, list) else [wanted]):
                return str(each["mapping"]["type"])
        raise Refused(f"no dynamic template for [{path}]")


def _fits(value: Any, kind: str) -> bool:
    if kind in _STRINGS:
        return isinstance(value, str)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "long":
        return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if kind == "double":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "flattened":
        return isinstance(value, dict)
    try:
        if kind == "date":
            datetime.fromisoformat(value)
        elif kind == "ip":
            ipaddress.ip_address(value)
        else:
            return False
    except (TypeError, ValueError):
        return False
    return True


@contextmanager
def bulk_server(template: dict[str, Any]) -> Iterator[tuple[str, Index]]:
    """Its address, and what it takes."""
    index = Index(template)

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            name = self.path.strip("/").removesuffix("/_bulk")
            body = self.rfile.read(int(self.headers["content-length"]))
            lines = [json.loads(line) for line in body.splitlines() if line.strip()]
            items = [self._take(name, action, source) for action, source in zip(lines[::2], lines[1::2], strict=True)]
            answer = json.dumps(
                {"errors": any(each["create"]["status"] != 201 for each in items), "items": items}
            ).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def _take(self, name: str, action: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
            try:
                ((kind, _),) = action.items()
                if kind != "create":
                    raise Refused("only write ops with an op_type of create are allowed in data streams")
                if not any(fnmatch(name, pattern) for pattern in template["index_patterns"]):
                    raise Refused(f"no such index [{name}]")
                index.add(source)
            except Refused as refused:
                return {"create": {"status": 400, "error": {"reason": str(refused)}}}
            return {"create": {"status": 201}}

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", index
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(url: str, lines: list[dict[str, Any]]) -> list[str]:
    """Send lines as Filebeat does; what was refused, and why."""
    documents = [expanded(line) for line in lines]
    body = "".join(f'{{"create": {{}}}}\n{json.dumps(document)}\n' for document in documents)
    answer = httpx.post(
        f"{url}/foretell-logs/_bulk", content=body, headers={"content-type": "application/x-ndjson"}, timeout=60
    ).json()
    return [
        f"{each['create']['error']['reason']}: {json.dumps(line)[:300]}"
        for each, line in zip(answer["items"], lines, strict=True)
        if each["create"]["status"] != 201
    ]
