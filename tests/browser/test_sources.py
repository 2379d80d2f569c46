"""The sources of the page keep their rules, fit the API as it is now, and stay small."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.browser.conftest import ROOT
from tests.services_database import missing

from foretell.local.page import Page

# Each waits patiently: a machine that does much else is slow.
pytestmark = pytest.mark.timeout(900)

KIB = 1024
BUILT = Page(ROOT, lambda _: None, {}).built


def npm(web: Path, *arguments: str) -> None:
    program = shutil.which("npm")
    if program is None:
        missing("there is no npm here")
    done = subprocess.run([program, *arguments], cwd=web, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]


def test_they_keep_their_rules_and_fit_the_api(web: Path) -> None:
    # The types are made from the API of this checkout: what the page believes of it and is not so is an error of tsc.
    subprocess.run([sys.executable, str(web / "openapi.py")], check=True)
    npm(web, "run", "types")
    npm(web, "run", "check")


def test_they_stay_small(web: Path) -> None:
    scripts = [path.name for path in (BUILT / "assets").glob("*.js")]
    assert scripts
    # What is too small to be compressed goes out as it is.
    sizes = {
        name: next(path for path in (BUILT / "assets" / f"{name}.br", BUILT / "assets" / name) if path.exists())
        .stat()
        .st_size
        for name in scripts
    }
    document = (BUILT / "index.html").read_text(encoding="utf-8")
    first = [name for name in scripts if name in document or name.startswith(("ru-", "en-"))]
    assert len(first) >= 3
    assert sum(sizes[name] for name in first) <= 60 * KIB
    assert sum(sizes.values()) <= 150 * KIB


def test_no_script_or_style_stands_in_the_document(web: Path) -> None:
    document = (BUILT / "index.html").read_text(encoding="utf-8")
    assert "<style" not in document
    assert "style=" not in document
    assert document.count("<script") == document.count('<script type="module" crossorigin src="/ui/assets/')


def test_the_lock_file_names_no_registry() -> None:
    lock = (ROOT / "web" / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    assert '"integrity": "sha512-' in lock
