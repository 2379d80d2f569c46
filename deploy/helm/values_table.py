#!/usr/bin/env python3
"""Makes the table of values in the chart's README from the comments of values.yaml.

    python3 deploy/helm/values_table.py            writes it
    python3 deploy/helm/values_table.py --check    ends with 1 where it is not what it would write

Standard library only. It ends with an error for a key that no comment explains.
"""

import re
import sys
from pathlib import Path

CHART = Path(__file__).resolve().parent / "foretell"
BEGIN, END = "<!-- values -->", "<!-- /values -->"
_KEY = re.compile(r"( *)([A-Za-z0-9_]+):(?: +(.*))?")


def rows(text: str) -> list[tuple[str, str, str]]:
    """Path, default and meaning of every key of values.yaml. Raises `ValueError` for one that nothing explains."""
    found: list[tuple[str, str, str]] = []
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        key = _KEY.fullmatch(line)
        if key is not None:
            path[len(key[1]) // 2 :] = [key[2]]
            if not comment:
                raise ValueError(f"{'.'.join(path)}: values.yaml does not say what it is.")
            found.append((".".join(path), key[3] or "", " ".join(comment)))
            comment = []
        elif line.strip().startswith("#"):
            comment.append(line.strip().removeprefix("#").strip())
        else:
            # An item of a list, or a paragraph of its own.
            comment = []
    return found


def table(text: str) -> str:
    """The table in Markdown."""
    lines = ["| value | default | what it is |", "| --- | --- | --- |"]
    for path, default, meaning in rows(text):
        shown = f"`{default}`" if default else ""
        lines.append(f"| `{path}` | {shown} | {meaning} |".replace("{{", "{ {"))
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Write the table, or with `--check` only compare it."""
    place = CHART / "README.md"
    before = place.read_text(encoding="utf-8")
    head, rest = before.split(BEGIN)
    made = f"{head}{BEGIN}\n{table((CHART / 'values.yaml').read_text(encoding='utf-8'))}\n{END}{rest.split(END)[1]}"
    if "--check" not in arguments:
        place.write_text(made, encoding="utf-8")
    return int("--check" in arguments and made != before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
