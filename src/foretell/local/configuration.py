"""Writes the supervisor's configuration."""

import resource
from collections.abc import Iterable

from foretell.local.installation import Program

#: A service stops within its grace period and 8 s, or ends itself; a process that hangs longer gets SIGKILL.
STOP_WAIT_S = 29
_OPEN_FILES = 4096

# The file contains no paths, because their characters may have a meaning here (% ; # "). Paths come from the
# environment, which supervisord substitutes after parsing the line. It substitutes names of log
# files twice, so in FORETELL_ENGINE_LOGS each % is doubled.
_SUPERVISOR = """\
[supervisord]
nodaemon = true
silent = true
logfile = %(ENV_FORETELL_ENGINE_DIR)s/logs/supervisor.log
logfile_maxbytes = 1MB
logfile_backups = 1
pidfile = %(ENV_FORETELL_ENGINE_DIR)s/run/supervisor.pid
childlogdir = %(ENV_FORETELL_ENGINE_DIR)s/logs
minfds = {open_files}

[unix_http_server]
file = %(ENV_FORETELL_ENGINE_SOCKET)s
chmod = 0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""

_PROGRAM = """
[program:{name}]
command = %(ENV_FORETELL_ENGINE_COMMAND)s {service}
environment = FORETELL_INSTANCE="{instance}",FORETELL_HOST="{host}",FORETELL_PORT="{port}"
autostart = true
autorestart = true
startsecs = 5
startretries = 1000000000
stopwaitsecs = {stop_wait_s}
stopasgroup = true
killasgroup = true
redirect_stderr = true
stdout_logfile = %(ENV_FORETELL_ENGINE_LOGS)s/{name}.log
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 3
"""


def render(programs: Iterable[Program]) -> str:
    """The configuration file of the supervisor for these processes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    parts = [_SUPERVISOR.format(open_files=open_files)]
    parts += [
        _PROGRAM.format(
            name=program.name,
            service=program.service,
            instance=program.instance,
            host=program.host.replace("%", "%%"),
            port=program.port,
            stop_wait_s=STOP_WAIT_S,
        )
        for program in programs
    ]
    return "".join(parts)
