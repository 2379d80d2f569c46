"""Caddy for tests, with the configuration that ships, and Pebble, an ACME authority that gives it certificates."""

import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.name_server import naming
from tests.ports import free_ports
from tests.services_database import missing
from tests.services_nginx import certificate

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
DOMAIN = "foretell.test"
_PATIENCE_S = 60.0


@dataclass
class PrivateCaddy:
    """One Caddy, whose certificate Pebble has signed."""

    http_port: int
    https_port: int
    log: Path
    #: What whoever comes believes in.
    roots: ssl.SSLContext

    def client(self, *, http2: bool = False) -> "CaddyClient":
        """Somebody outside, who knows it by its name."""
        return CaddyClient(self, http2)


class CaddyClient(httpx.Client):
    """Asks 127.0.0.1 for `DOMAIN`."""

    def __init__(self, caddy: PrivateCaddy, http2: bool) -> None:
        super().__init__(
            base_url=f"https://127.0.0.1:{caddy.https_port}",
            verify=caddy.roots,
            http2=http2,
            timeout=60,
            headers={"Host": f"{DOMAIN}:{caddy.https_port}"},
        )

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """As httpx does, with the name of the certificate."""
        request.extensions["sni_hostname"] = DOMAIN
        return super().send(request, **options)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        missing(f"This test needs {name} (Debian: {name}; the service itself need not run).")
    return found


def _start(stack: ExitStack, command: list[str], log: Path, environment: dict[str, str]) -> None:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    stack.callback(process.wait, _PATIENCE_S)
    stack.callback(process.terminate)


def _until_answered(client: httpx.Client, path: str, log: Path) -> httpx.Response:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return client.get(path)
        except httpx.TransportError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path}: {error}\n{log.read_text(errors='replace')[-3000:]}") from error
            time.sleep(0.1)


@pytest.fixture(scope="module")
def caddy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateCaddy]:
    """A Caddy in front of what the module's fixture `caddy_settings` names, with a certificate."""
    programs = {name: _program(name) for name in ("pebble", "caddy")}
    folder = tmp_path_factory.mktemp("caddy")
    acme, management, http, https = free_ports(4)
    certificate(folder)
    (folder / "pebble.json").write_text(
        json.dumps(
            {
                "pebble": {
                    "listenAddress": f"127.0.0.1:{acme}",
                    "managementListenAddress": f"127.0.0.1:{management}",
                    "certificate": str(folder / "fullchain.pem"),
                    "privateKey": str(folder / "privkey.pem"),
                    "httpPort": http,
                    "tlsPort": https,
                }
            }
        )
    )
    believing = ssl.create_default_context(cafile=folder / "fullchain.pem")
    with ExitStack() as stack:
        names = stack.enter_context(naming({DOMAIN: ["127.0.0.1"]}))
        pebble_log, caddy_log = folder / "pebble.log", folder / "caddy.log"
        _start(
            stack,
            [programs["pebble"], "-config", str(folder / "pebble.json"), "-dnsserver", names.address],
            pebble_log,
            {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"},
        )
        with httpx.Client(base_url=f"https://localhost:{management}", verify=believing) as client:
            root = _until_answered(client, "/roots/0", pebble_log).text
        settings: dict[str, str] = request.getfixturevalue("caddy_settings")
        _start(
            stack,
            [programs["caddy"], "run", "--config", str(DEPLOY / "caddy" / "Caddyfile"), "--adapter", "caddyfile"],
            caddy_log,
            {
                "HOME": str(folder),
                "XDG_DATA_HOME": str(folder / "data"),
                "XDG_CONFIG_HOME": str(folder / "config"),
                # Whom Caddy believes: the authority.
                "SSL_CERT_FILE": str(folder / "fullchain.pem"),
                "FORETELL_DOMAIN": DOMAIN,
                "FORETELL_CADDY_LISTEN": "127.0.0.1",
                "FORETELL_CADDY_HTTP_PORT": str(http),
                "FORETELL_CADDY_HTTPS_PORT": str(https),
                "FORETELL_CADDY_ACME_CA": f"https://localhost:{acme}/dir",
                "FORETELL_CADDY_PAGES": str(DEPLOY / "nginx" / "pages"),
                **settings,
            },
        )
        started = PrivateCaddy(http, https, caddy_log, ssl.create_default_context(cadata=root))
        with started.client() as client:
            _until_answered(client, "/caddy-health", caddy_log)
        yield started
