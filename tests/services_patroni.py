"""A PostgreSQL that looks after itself: two servers under Patroni, which agree by three nodes of etcd who leads."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.ports import free_ports
from tests.services_database import missing, postgresql_programs, unprivileged_account

_PATIENCE_S = 120.0

_PATRONI = """
scope: foretell
name: {name}
restapi: {{listen: "127.0.0.1:{api_port}", connect_address: "127.0.0.1:{api_port}"}}
etcd3: {{hosts: [{etcd}]}}
bootstrap:
  dcs:
    # The shortest that Patroni takes: so long after the last word of a leader another one is chosen.
    ttl: 20
    loop_wait: 1
    retry_timeout: 3
    primary_start_timeout: 0
    synchronous_mode: true
    failsafe_mode: true
    postgresql: {{use_pg_rewind: true}}
  initdb: [{{encoding: UTF8}}, data-checksums, {{auth-host: trust}}, {{auth-local: trust}}]
postgresql:
  listen: "127.0.0.1:{port}"
  connect_address: "127.0.0.1:{port}"
  data_dir: {folder}/data
  bin_dir: {programs}
  pgpass: {folder}/pgpass
  authentication:
    superuser: {{username: postgres, password: secret}}
    replication: {{username: replicator, password: secret}}
  pg_hba: ["local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]
  # Processes are killed here, machines are not: what was written is there even if it was not flushed.
  parameters: {{unix_socket_directories: {folder}, fsync: "off", shared_buffers: 32MB, wal_log_hints: "on"}}
"""


class PatroniNode:
    """One server and the Patroni that looks after it."""

    def __init__(self, folder: Path, name: str, etcd: str) -> None:
        self.name = name
        self.port, self._api_port = free_ports(2)
        self._folder = folder / name
        self._folder.mkdir(mode=0o700)
        self._account = unprivileged_account()
        self._process: subprocess.Popen[bytes] | None = None
        settings = _PATRONI.format(
            name=name,
            port=self.port,
            api_port=self._api_port,
            etcd=etcd,
            folder=self._folder,
            programs=postgresql_programs(),
        )
        (self._folder / "patroni.yml").write_text(settings)
        if self._account:
            shutil.chown(self._folder, self._account["user"], self._account["group"])

    def start(self) -> None:
        """Start it; `wait_for` says when it is there."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._folder), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        program = Path(_program("patroni", "patroni"))
        # Where the package was only unpacked, its modules are beside it.
        modules = program.parent.parent / "lib" / "python3" / "dist-packages"
        if program.parent != Path("/usr/bin") and modules.is_dir():
            environment["PYTHONPATH"] = str(modules)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, self._folder / "patroni.yml"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=environment,
                start_new_session=True,
                **self._account,
            )

    def kill(self) -> None:
        """End it as a power cut would: Patroni first, so that nobody restarts the server, and every process of it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE_S)
            self._process = None
        file = self._folder / "data" / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess, ValueError, IndexError):
            server = psutil.Process(int(file.read_text().splitlines()[0]))
            # The number may be somebody else's by now.
            if str(self._folder) in " ".join(server.cmdline()):
                processes = [server, *server.children(recursive=True)]
                for process in processes:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGKILL)
                psutil.wait_procs(processes, timeout=_PATIENCE_S)

    def role(self) -> str:
        """`master` or `primary`, `sync_standby`, `replica`; empty where it does not say."""
        found = self._cluster()
        return next((str(each["role"]) for each in found if each["name"] == self.name and _works(each)), "")

    def _cluster(self) -> list[dict[str, object]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._api_port}/cluster", timeout=5) as answer:
                members: list[dict[str, object]] = json.load(answer)["members"]
                return members
        except (OSError, urllib.error.URLError, ValueError, KeyError):
            return []

    def log_tail(self) -> str:
        """The end of what it wrote."""
        return (self._folder / "log").read_text(errors="replace")[-3000:]

    @property
    def leads(self) -> bool:
        """Whether it is the primary, and says so."""
        return self.role() in ("master", "primary", "leader")


def _works(member: dict[str, object]) -> bool:
    return member["state"] in ("running", "streaming")


class EtcdNode:
    """One of the nodes by which servers agree."""

    def __init__(self, folder: Path, name: str, ports: dict[str, tuple[int, int]]) -> None:
        """`ports`: of every node, by name: where it answers clients, and where the other nodes."""
        client, peer = (f"http://127.0.0.1:{port}" for port in ports[name])
        everybody = ",".join(f"{each}=http://127.0.0.1:{port}" for each, (_, port) in ports.items())
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / f"{name}.log"
        self._command = [
            _program("etcd", "etcd-server"), "--name", name, "--data-dir", folder / name,
            "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster", everybody,
            # A machine that is busy is no partition.
            "--heartbeat-interval", "500", "--election-timeout", "5000", "--unsafe-no-fsync",
        ]  # fmt: skip

    def start(self) -> None:
        """Start it, with what it knew."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder
            )

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE_S)
            self._process = None


class PatroniCluster:
    """Two servers, one of which leads; the other has what was committed."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="foretell-patroni-"))
        self._folder.chmod(0o755)
        names, free = ("one", "two", "three"), free_ports(6)
        ports = {name: (free[2 * index], free[2 * index + 1]) for index, name in enumerate(names)}
        self.etcd = [EtcdNode(self._folder / "etcd", name, ports) for name in names]
        (self._folder / "etcd").mkdir()
        hosts = ", ".join(f"'127.0.0.1:{client}'" for client, _ in ports.values())
        self.nodes = [PatroniNode(self._folder, name, hosts) for name in ("one", "two")]

    @property
    def url(self) -> str:
        """Both servers; whichever leads is used."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"

    def start(self) -> None:
        """Start both, and wait until one leads and the other has what it has."""
        for node in self.etcd:
            node.start()
        self.nodes[0].start()
        self.wait_for(lambda: self.nodes[0].leads, "a leader")
        self.nodes[1].start()
        self.wait_for_standby()

    @property
    def leader(self) -> PatroniNode:
        """The one that leads, as soon as there is one."""
        self.wait_for(lambda: any(node.leads for node in self.nodes), "a leader")
        return next(node for node in self.nodes if node.leads)

    def wait_for_standby(self) -> None:
        """Wait until what is committed is on both."""
        self.wait_for(lambda: any(node.role() == "sync_standby" for node in self.nodes), "a synchronous standby")

    def wait_for(self, condition: object, what: str) -> None:
        """Raise `TimeoutError`, with what the servers said, when it does not come."""
        assert callable(condition)
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: {[node.log_tail() for node in self.nodes]}")
            time.sleep(0.2)

    def remove(self) -> None:
        """End all of it and remove its files."""
        for node in self.nodes:
            node.kill()
        for agreeing in self.etcd:
            agreeing.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _program(name: str, package: str) -> str:
    return shutil.which(name) or missing(f"This test needs {name} on the PATH (Debian: {package}).")


@pytest.fixture
def patroni_cluster() -> Iterator[PatroniCluster]:
    """Two servers under Patroni that the test may kill."""
    cluster = PatroniCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()
