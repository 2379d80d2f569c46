#!/usr/bin/env python3
"""Start, watch and stop Foretell, or run its tests; sets up all it needs on the first call.

    python start.py                              a menu
    python start.py --start [--workers N]        everything up; again with another N: scales
    python start.py --stop | --status
    python start.py --logs [SERVICE] [--follow]
    python start.py --test [pytest arguments]
    ... --engine local|docker                    processes of this machine (the default), or Docker Compose

This file has to be readable for every Python, also for one that is too old: it only looks at the version.
"""

# ruff: noqa: UP031 - other ways to format are a syntax error for the Pythons that are to be told so.

import os
import subprocess
import sys

NEEDED = (3, 11)


def suitable_pythons():
    # type: () -> list[str]
    """The names under which a newer Python is found here and works."""
    found = []
    with open(os.devnull, "w") as nowhere:
        for minor in range(14, NEEDED[1] - 1, -1):
            name = "python3.%d" % minor
            try:
                if subprocess.call([name, "-c", "import venv"], stdout=nowhere, stderr=nowhere) == 0:
                    found.append(name)
            except OSError:
                continue
    return found


def too_old():
    # type: () -> str
    """What to tell somebody whose Python is too old."""
    message = "Foretell needs Python %d.%d or newer; this is Python %d.%d." % (NEEDED + tuple(sys.version_info[:2]))
    names = suitable_pythons()
    if names:
        return "%s There is a newer one here: run %s start.py" % (message, names[0])
    return message + " Install one (Debian, Ubuntu: apt install python3.11 python3.11-venv) and run python3.11 start.py"


if __name__ == "__main__":
    if sys.version_info < NEEDED:
        sys.exit(too_old())
    if os.name != "posix":
        sys.exit("start.py runs on Linux, macOS and WSL. Here, with Docker Desktop: docker compose up -d")
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "src"))
    from foretell.local.start import main

    sys.exit(main(sys.argv[1:]))
