"""Shows log lines, as text for people or unchanged."""

import json
import sys
from collections.abc import Iterable

from foretell.cli.output import console
from foretell.local.log_files import LogLine
from foretell.local.log_format import readable


def print_lines(lines: Iterable[LogLine], *, as_json: bool = False) -> None:
    """As text for people, or with `as_json` for programs."""
    for line in lines:
        text = _as_json(line) if as_json else readable(line, colour=console.is_terminal)
        sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _as_json(line: LogLine) -> str:
    if line.raw.startswith("{"):
        return line.raw
    return json.dumps({"@timestamp": line.moment.isoformat(), "message": line.raw, "service.name": line.source})
