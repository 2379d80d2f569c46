"""Schemathesis, with all its checks, asks every service what its own OpenAPI page says.

`schemathesis.toml` beside this file has what it may find, with the reasons. A few examples of each operation, always
the same; docs/development.md has a longer form.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from .conftest import SERVICES, Account, Production

HERE = Path(__file__).parent
EXAMPLES = int(os.environ.get("FORETELL_TEST_SCHEMATHESIS_EXAMPLES", "2"))


# On a machine that does other things, too, the app's hundred operations take minutes.
@pytest.mark.timeout(1800)
@pytest.mark.skipif(find_spec("schemathesis") is None, reason="schemathesis is in requirements-dev.lock")
@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_found_that_is_not_explained(
    production: Production, ada: Account, service: str, tmp_path: Path
) -> None:
    bearer = production.monitoring_token if service == "monitoring" else ada.client.headers["Authorization"][7:]
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("--config-file", str(HERE / "schemathesis.toml"), "run", f"{production.url(service)}/openapi.json"),
            *("--header", f"Authorization: Bearer {bearer}", "--warnings", "off", "--continue-on-failure"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)),
            *("--generation-deterministic", "--no-shrink", "--request-timeout", "30", "--no-color"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    production.assert_well()
