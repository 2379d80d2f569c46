"""The blocking client is generated from the asynchronous one, without `await`.

.venv/bin/python tests/unit/client/test_twins.py    generates the blocking one again
"""

import re
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[3] / "src" / "foretell" / "client"

#: A file that is written by hand, and the one that follows from it.
TWINS = {"asynchronous.py": "blocking.py", "asynchronous_connection.py": "blocking_connection.py"}

#: What is different without an event loop, in this order. A line that is for one of them alone ends with nothing.
DIFFERENCES = {
    r'"""The client for asyncio, used by the bot\. It has the same methods as `blocking`\."""': (
        '"""The synchronous client, used by the command line. tests/unit/client/test_twins.py makes it."""'
    ),
    r"For one event loop\.": "Not for several threads at once.",
    r"from collections\.abc import (.*)AsyncIterator(, )?(Awaitable, )?": r"from collections.abc import Iterator, \1",
    r"import asyncio\n": "import time\n",
    r"asyncio\.sleep": "time.sleep",
    r"Callable\[\[float\], Awaitable\[None\]\]": "Callable[[float], None]",
    r"\bawait ": "",
    r"\basync (def|with|for) ": r"\1 ",
    r"__a(enter|exit)__": r"__\1__",
    r"\ba(read|close)\(\)": r"\1()",
    r"aiter_bytes": "iter_bytes",
    r"for (\w+) in (.+):\n +yield \1\n": r"yield from \2\n",
    r"\bAsync": "",
    r"httpx\.Async": "httpx.",
    r"asynchronous": "blocking",
}


def blocking_of(asynchronous: str) -> str:
    """The source of the blocking twin."""
    for pattern, replacement in DIFFERENCES.items():
        asynchronous = re.sub(pattern, replacement, asynchronous)
    return asynchronous


def tidied(source: str) -> str:
    """Without line breaks and the order of imports, which a formatter chooses."""
    lines = sorted(line for line in source.splitlines() if line.startswith("from collections.abc import"))
    names = sorted(name for line in lines for name in re.split(r"[ ,]+", line)[3:])
    rest = "".join(line for line in source.splitlines() if not line.startswith("from collections.abc import"))
    return f"{names} " + re.sub(r",?\s+|(?<=[(\[])|,(?=[)\]])", "", rest)


@pytest.mark.parametrize("source", TWINS)
def test_the_blocking_twin_is_what_follows_from_the_asynchronous_one(source: str) -> None:
    expected = blocking_of((CLIENT / source).read_text(encoding="utf-8"))
    found = (CLIENT / TWINS[source]).read_text(encoding="utf-8")
    assert tidied(found) == tidied(expected), "Run: .venv/bin/python tests/unit/client/test_twins.py"


if __name__ == "__main__":
    for source, twin in TWINS.items():
        (CLIENT / twin).write_text(blocking_of((CLIENT / source).read_text(encoding="utf-8")), encoding="utf-8")
