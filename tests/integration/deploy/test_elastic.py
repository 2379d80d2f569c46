"""Our lines fit the index template, and Kibana is given its views: with servers of the tests; neither is to be had."""

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml
from tests.deployed import DEPLOY
from tests.elastic import Refused, bulk_server, expanded, send
from tests.system import FLIGHT, running_system

from foretell.kit import logs

FILEBEAT = DEPLOY / "filebeat"


@pytest.fixture
def template() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FILEBEAT / "index-template.json").read_text())
    return read


def line_of(**fields: Any) -> dict[str, Any]:
    """A line as a service writes it."""
    encode = logs._line_of("app", "app-1")
    read: dict[str, Any] = json.load(BytesIO(encode(None, "info", {"event": "something_happened", **fields})))
    return read


async def test_every_line_of_a_system_at_work_is_taken(template: dict[str, Any], tmp_path: Path) -> None:
    embedded = {"database_url": f"sqlite:///{tmp_path / 'f.db'}", "broker_url": f"sqlite:///{tmp_path / 'b.db'}"}
    async with (
        running_system(tmp_path, **embedded, workers=1, FORETELL_LOG_LEVEL="debug") as system,
        httpx.AsyncClient(base_url=system.url, timeout=60) as client,
    ):
        answer = await client.post("/token", data={"username": "test", "password": "test"})
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        for model, given in (("flight-delay", FLIGHT), ("flight-delay", {}), ("nothing", {})):
            await client.post(
                "/predictions/predict", json={"model": model, "input": given}, headers={"Prefer": "wait=30"}
            )
        await client.get("/nowhere", headers={"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"})
    text = "".join(log.read_text() for log in tmp_path.glob("*.log"))
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert {line["service.name"] for line in lines} == {"app", "dispatcher", "ml_worker"}
    with bulk_server(template) as (url, index):
        assert send(url, lines) == []
        assert len(index.documents) == len(lines) > 20


@pytest.mark.parametrize(
    "fields",
    [
        {"error": "a text where the schema has an object"},
        {"event.duration": "long"},
        {"client.ip": "unknown"},
        {"http.response.status_code": "200"},
        {"service": 1},
    ],
)
def test_what_the_mapping_has_no_place_for_is_refused(template: dict[str, Any], fields: dict[str, Any]) -> None:
    line = {"@timestamp": "2026-01-01T00:00:00Z", "message": "x", **fields}
    with bulk_server(template) as (url, index):
        assert len(send(url, [line])) == 1
        assert index.documents == []
        assert send(url, [line_of(count=1, model="flight-delay", ready=True)]) == []


def test_a_field_has_one_type(template: dict[str, Any]) -> None:
    with bulk_server(template) as (url, _):
        assert send(url, [line_of(ready=True), line_of(count=1), line_of(count=1.5)]) == []
        assert len(send(url, [line_of(ready="yes"), line_of(count={"a": 1})])) == 2


def test_names_that_could_not_stand_together_are_found() -> None:
    with pytest.raises(Refused, match="conflicting key"):
        expanded({"log": "a text", "log.level": "info"})


def test_filebeat_in_compose_has_the_template_and_the_stream(template: dict[str, Any]) -> None:
    read = yaml.safe_load((FILEBEAT / "filebeat-compose.yml").read_text())
    assert read["output.elasticsearch"]["index"] == "foretell-logs"
    assert read["setup.template"]["json"]["data_stream"] is True
    assert template["data_stream"] == {}
    assert template["index_patterns"] == [read["setup.template"]["pattern"]]


class _Kibana(BaseHTTPRequestHandler):
    taken: list[bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.headers["kbn-xsrf"]
        assert self.path == "/api/saved_objects/_import?overwrite=true"
        self.taken.append(body)
        answer = json.dumps({"success": True, "successCount": 3}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def kibana() -> Iterator[ThreadingHTTPServer]:
    _Kibana.taken = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Kibana)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_kibana_is_given_the_views(kibana: ThreadingHTTPServer) -> None:
    done = subprocess.run(
        [sys.executable, FILEBEAT / "load_view.py", "10"],
        env={"KIBANA_URL": f"http://127.0.0.1:{kibana.server_port}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "Kibana has 3 objects.\n")
    (body,) = _Kibana.taken
    assert (FILEBEAT / "view.ndjson").read_bytes() in body


def test_the_views_show_fields_that_lines_have(template: dict[str, Any]) -> None:
    objects = [json.loads(line) for line in (FILEBEAT / "view.ndjson").read_text().splitlines()]
    ids = {each["id"] for each in objects}
    (view,) = [each for each in objects if each["type"] == "index-pattern"]
    assert view["attributes"]["title"] == template["index_patterns"][0]
    for each in objects:
        assert {reference["id"] for reference in each["references"]} <= ids
        assert "service.name" in each["attributes"].get("columns", ["service.name"])
