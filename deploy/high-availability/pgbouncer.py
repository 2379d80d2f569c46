"""Runs PgBouncer in transaction mode in front of the PostgreSQL server that leads, and follows when another one leads.

PgBouncer answers a log-in from what it remembers of its server, `in_hot_standby` too. One that keeps its server lets
clients in while that is dead, and calls it a standby after its promotion. So each asks Patroni which server leads.
"""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

_FOLDER = Path("/tmp/pgbouncer")  # noqa: S108 - a tmpfs of this container
_SECRETS = Path("/run/secrets")
_DATABASES = {"foretell": "database_password", "foretell_monitoring": "monitoring_database_password"}
_LOOK_EVERY_S = 1.0
_TIMEOUT_S = 2.0
_SETTINGS = """\
[pgbouncer]
listen_addr = 0.0.0.0
listen_port = 6432
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 40
max_client_conn = 1000
# A server that is away is asked again soon, and clients get an error soon.
server_connect_timeout = 3
server_login_retry = 1
query_wait_timeout = 4
log_connections = 0
log_disconnections = 0
"""


def leader(servers: Iterable[str], port: int = 8008) -> str | None:
    """The server whose Patroni says that it leads; None while there is none."""
    for server in servers:
        try:
            with urllib.request.urlopen(f"http://{server}:{port}/primary", timeout=_TIMEOUT_S):
                return server
        except (OSError, urllib.error.URLError):
            continue
    return None


def configuration(server: str, folder: Path = _FOLDER) -> str:
    """PgBouncer's configuration for this server."""
    databases = "".join(f"{name} = host={server} port=5432\n" for name in _DATABASES)
    return f"[databases]\n{databases}{_SETTINGS.format(folder=folder)}"


def main() -> int:
    """Run until PgBouncer ends, and return how."""
    servers = os.environ["FORETELL_SERVERS"].split(",")
    os.umask(0o077)
    _FOLDER.mkdir(exist_ok=True)
    users = [f'"{name}" "{(_SECRETS / file).read_text().strip()}"\n' for name, file in _DATABASES.items()]
    (_FOLDER / "users.txt").write_text("".join(users))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while (current := leader(servers)) is None:
        time.sleep(_LOOK_EVERY_S)
    settings = _FOLDER / "pgbouncer.ini"
    settings.write_text(configuration(current))
    bouncer = subprocess.Popen(["pgbouncer", str(settings)])  # noqa: S603, S607
    signal.signal(signal.SIGTERM, lambda *_: bouncer.terminate())
    while bouncer.poll() is None:
        found = leader(servers)
        if found not in (None, current):
            print(f"{found} leads now, and no longer {current}", flush=True)
            current = found
            settings.write_text(configuration(str(current)))
            bouncer.send_signal(signal.SIGHUP)
        time.sleep(_LOOK_EVERY_S)
    return bouncer.returncode


if __name__ == "__main__":
    sys.exit(main())
