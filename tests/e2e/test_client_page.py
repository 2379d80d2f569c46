"""docs/client.md does what it says: every block of it is run as it stands there, against a whole system."""

import asyncio
import re
import sys
from pathlib import Path

import pytest
from tests.system import System

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
_USUAL_URL = "http://localhost:8000"

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = _BLOCK.findall(PAGE.read_text(encoding="utf-8"))

#: What a block is known by, and what it prints.
SAYS = {
    "What a lovely day": r"'label': 'positive'.* for 2 credits\n\d+ credits are left",
    "create_api_key": r"^test$",
    "asyncio.gather": r"Lovely .*\nTerrible .*\nNever again .*\nThe best one so far .*",
    "except PredictionFailed": r"422 invalid_request .*departure_time",
    "iter_predictions": r"succeeded [\d.]+ s\n(.*\n)*.* capture -?\d+",
    "iter_events": r"label",
    "page = await client.events()": r"^\d+ prediction\.finished$",
    "create_webhook": r"Keep this: whsec_|can't be resolved\.$",
}


async def run(system: System, code: str) -> str:
    """What a block prints."""
    assert _USUAL_URL in code
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-c", code.replace(_USUAL_URL, system.url)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, wrong = await asyncio.wait_for(program.communicate(), 120)
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    assert program.returncode == 0, f"{code}\n{said.decode()}\n{wrong.decode()}"
    return said.decode()


def test_every_block_is_known() -> None:
    found = [mark for block in BLOCKS for mark in SAYS if mark in block]
    assert sorted(found) == sorted(SAYS)
    assert len(BLOCKS) == len(SAYS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("backends", ["embedded"], indirect=True)
async def test_every_block_does_what_it_says(system: System) -> None:
    for block in BLOCKS:
        mark = next(mark for mark in SAYS if mark in block)
        said = await run(system, block)
        assert re.search(SAYS[mark], said.strip(), re.MULTILINE), f"{block}\nprinted\n{said}"
