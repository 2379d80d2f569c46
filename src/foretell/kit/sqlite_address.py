"""Reads the URL of a SQLite database. Without SQLAlchemy, which takes `foretell up` longer to import than all else."""

import re
from pathlib import Path
from urllib.parse import unquote

from foretell.kit.errors import Misconfigured

_URL = re.compile(r"sqlite://[^/?]*/([^?]+)")


def sqlite_path(url: str) -> Path:
    """The file of a URL. Raises `Misconfigured`."""
    found = _URL.match(url)
    if found is None:
        raise Misconfigured("FORETELL_DATABASE_URL has no path: sqlite:///PATH is needed")
    return Path(unquote(found[1]))
