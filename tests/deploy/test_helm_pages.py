"""What the chart's pages say is what its files have."""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.deploy.chart import CHART, KUBERNETES

VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
README = (CHART / "README.md").read_text(encoding="utf-8")
PAGE = (CHART.parents[2] / "docs" / "kubernetes.md").read_text(encoding="utf-8")


def _paths(values: dict[str, Any], before: str = "") -> Iterator[str]:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    for key, value in values.items():
        yield before + key
        # What stands on one line is a value, and explained as a whole.
        if isinstance(value, dict) and re.search(rf"^ *{key}:$", text, re.MULTILINE) and key not in ("common",):
            yield from _paths(value, f"{before}{key}.")


def test_the_table_of_values_is_that_of_the_file() -> None:
    program = CHART.parent / "values_table.py"
    done = subprocess.run([sys.executable, program, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr} Run: python3 deploy/helm/values_table.py"


def test_the_table_has_every_value() -> None:
    named = set(re.findall(r"^\| `([\w.]+)` \|", README, re.MULTILINE))
    assert {path.partition(".")[0] for path in named} == VALUES.keys()
    for path in named:
        found: Any = VALUES
        for key in path.split("."):
            found = found[key]
    missing = [path for path in _paths(VALUES) if path not in named and path.split(".")[0] in VALUES]
    # A section that stands on one line in one place and on several in another is named where it has several.
    assert [path for path in missing if path.rpartition(".")[0] not in _one_line()] == []


def _one_line() -> set[str]:
    """Values that stand on one line, and are explained as a whole."""
    return {path for path, default in re.findall(r"^\| `([\w.]+)` \| `(.+?)` \|", README, re.MULTILINE) if default}


@pytest.mark.parametrize("release", KUBERNETES)
def test_the_page_says_for_which_kubernetes_it_is_checked(release: str) -> None:
    assert release in PAGE


def test_the_page_sets_only_values_that_there_are() -> None:
    sets = re.findall(r"--set ([\w.]+)=", PAGE + README)
    assert len(sets) >= 3
    for path in sets:
        found: Any = VALUES
        for key in path.split("."):
            assert key in found, path
            found = found[key]
