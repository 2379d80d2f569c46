"""nginx for tests: Debian's, with the configuration that ships, on ports of its own.

`FORETELL_TEST_NGINX` names another program, such as a newer release than that of the machine.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.ports import free_ports
from tests.services_database import missing
from tests.waiting import wait_until_it_answers

START = Path(__file__).resolve().parents[1] / "deploy" / "nginx" / "start.sh"
_PATIENCE_S = 60.0


class PrivateNginx:
    """One nginx, started as a container starts it; `settings` are those of its environment, without `FORETELL_`."""

    def __init__(self, program: str, folder: Path, settings: dict[str, str]) -> None:
        self.port, self.secure_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.secure_url = f"https://localhost:{self.secure_port}"
        self.folder = folder
        self.certificates = folder / "certificates"
        self.output = folder / "nginx.log"
        self.access_log = folder / "access.log"
        self.certificates.mkdir(parents=True, exist_ok=True)
        # Not in the folder: nginx's workers, who are another user, must come here.
        self.run = Path(tempfile.mkdtemp(prefix="foretell-nginx-"))
        ours = {name: value for name, value in os.environ.items() if not name.startswith("FORETELL_")}
        upstreams = ("APP", "MODEL", "PREPROCESSING", "MONITORING", "BOT")
        # Nobody listens on port 9 (discard).
        self._environment = ours | {f"FORETELL_{name}_UPSTREAM": "127.0.0.1:9" for name in upstreams}
        self._environment |= {
            "FORETELL_NGINX_PROGRAM": program,
            "FORETELL_NGINX_RUN": str(self.run),
            "FORETELL_NGINX_LISTEN": "127.0.0.1",
            "FORETELL_NGINX_HTTP_PORT": str(self.port),
            "FORETELL_NGINX_HTTPS_PORT": str(self.secure_port),
            "FORETELL_NGINX_CERTIFICATES": str(self.certificates),
            "FORETELL_NGINX_ACCESS_LOG": str(self.access_log),
            "FORETELL_NGINX_WORKERS": "2",
            "FORETELL_NGINX_LOOK_S": "1",
        } | {f"FORETELL_{name}": value for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def configuration(self) -> Path:
        """What nginx reads, once it was written."""
        return self.run / "conf" / "nginx.conf"

    def call(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run `start.sh` with arguments, and return when it has ended."""
        environment = self._environment | {f"FORETELL_{name}": value for name, value in settings.items()}
        return subprocess.run(
            ["sh", str(START), *arguments], env=environment, capture_output=True, text=True, check=False
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                ["sh", str(START)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        url = f"{self.url}/nginx-health"
        wait_until_it_answers(url, self._process, self.said, patience_s=_PATIENCE_S, look_every_s=0.02)

    def said(self) -> str:
        """What it wrote that is no access log."""
        return self.output.read_text(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """The lines of the access log that are written by now."""
        return [msgspec.json.decode(line) for line in self.access_log.read_bytes().splitlines()]

    def line_of(self, request_id: str) -> dict[str, Any]:
        """The line of a request, once it is there: lines are written together, a second late."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            for line in self.lines():
                if line["http.request.id"] == request_id:
                    return line
            time.sleep(0.1)
        raise TimeoutError(f"no line of {request_id}")

    def stop_politely(self) -> None:
        """Tell it to answer what it has taken and to end, and return at once."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)

    def kill_worker(self) -> None:
        """End one of its workers at once, with the connections that it has."""
        assert self._process is not None
        workers = (each for each in psutil.Process(self._process.pid).children() if each.name() == "nginx")
        next(workers).kill()

    def remove(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.run, ignore_errors=True)


def certificate(folder: Path) -> Path:
    """Make a certificate for `localhost` in a folder, and return it: whoever is to believe it needs it."""
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    key, chain = folder / "privkey.pem", folder / "fullchain.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", names, "-keyout", str(key), "-out", str(chain)),
        ],
        capture_output=True,
        check=True,
    )
    return chain


@pytest.fixture(scope="session")
def nginx_program() -> str:
    """The program. Debian has it where only root looks."""
    named = os.environ.get("FORETELL_TEST_NGINX")
    found = named or shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None or shutil.which("envsubst") is None:
        missing("This test needs nginx and envsubst (Debian: nginx, gettext-base; the service need not run).")
    return found


NewNginx = Callable[..., PrivateNginx]


@pytest.fixture(scope="module")
def new_nginx(nginx_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewNginx]:
    """Makes nginxes that are not started yet, with settings of their own; they end with the module."""
    made: list[PrivateNginx] = []

    def make(**settings: str) -> PrivateNginx:
        made.append(PrivateNginx(nginx_program, tmp_path_factory.mktemp("nginx"), settings))
        return made[-1]

    yield make
    for each in made:
        each.remove()


@contextmanager
def running(nginx: PrivateNginx) -> Iterator[PrivateNginx]:
    """Started inside, gone afterwards."""
    nginx.start()
    try:
        yield nginx
    finally:
        nginx.remove()
