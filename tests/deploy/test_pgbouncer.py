"""What docker-compose.ha.yaml puts in front of PostgreSQL: PgBouncer follows the server that leads."""

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest
import yaml
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
#: Two addresses of the loopback stand for two servers.
ONE, TWO = "127.0.0.1", "127.0.0.2"


@pytest.fixture(scope="module")
def following() -> ModuleType:
    """The program of the container, as a module."""
    spec = importlib.util.spec_from_file_location(
        "following_pgbouncer", ROOT / "deploy" / "high-availability" / "pgbouncer.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def patroni(host: str, port: int, *, leads: bool) -> Iterator[None]:
    """What Patroni answers to whoever asks whether its server is the primary."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if leads and self.path == "/primary" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer((host, port), Answering) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ({ONE: True, TWO: False}, ONE),
        ({ONE: False, TWO: True}, TWO),
        ({TWO: True}, TWO),
        ({ONE: False, TWO: False}, None),
        ({ONE: False}, None),
        ({}, None),
    ],
    ids=["first", "second", "first is dead", "nobody yet", "the other is dead", "both are dead"],
)
def test_it_finds_the_server_that_leads(following: ModuleType, servers: dict[str, bool], expected: str | None) -> None:
    port = free_port()
    with ExitStack() as stack:
        for host, leads in servers.items():
            stack.enter_context(patroni(host, port, leads=leads))
        assert following.leader([ONE, TWO], port) == expected


def test_every_database_is_on_that_server(following: ModuleType, tmp_path: Path) -> None:
    written = following.configuration("postgres-2", tmp_path)
    databases, settings = written.split("[pgbouncer]")
    # By name: what is made for any name keeps its server when the configuration is read again.
    assert databases.splitlines() == [
        "[databases]", "foretell = host=postgres-2 port=5432", "foretell_monitoring = host=postgres-2 port=5432",
    ]  # fmt: skip
    assert f"auth_file = {tmp_path}/users.txt" in settings
    assert "pool_mode = transaction" in settings


def test_each_knows_every_server() -> None:
    class Lenient(yaml.SafeLoader):
        """Reads Compose's own tags, too."""

    Lenient.add_constructor("!reset", lambda loader, node: None)
    services = yaml.load((ROOT / "docker-compose.ha.yaml").read_text(encoding="utf-8"), Lenient)["services"]
    servers = {name for name in services if name.startswith("postgres")}
    for name in ("pgbouncer", "pgbouncer-2"):
        assert set(services[name]["environment"]["FORETELL_SERVERS"].split(",")) == servers
