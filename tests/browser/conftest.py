"""The page in a real Chromium, over a running product: one system for each module."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright
from tests.asides import run_aside
from tests.browser.looks import settled
from tests.browser.odd_model import write_odd_model
from tests.services_database import missing
from tests.services_system import Backends
from tests.system import System

from foretell.local import page as built_page

ROOT = Path(__file__).parents[2]
#: Without these, Chromium asks its makers' hosts for updates at every start.
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
PASSWORD = "correct horse battery"
#: A machine that does much else is slow, and that is no mistake of ours; what never comes is told after a minute.
PATIENCE_MS = 60_000

#: Nobody waits here for what a sweep finds, and they take a part of the processor for as long as a system runs.
CALM = {"FORETELL_SWEEP_INTERVAL_S": "2"}

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def web() -> Path:
    """`web/` with all its packages; the page is built from it."""
    said: list[str] = []
    page = built_page.Page(ROOT, said.append, {})
    try:
        page.build(checks=True)
    except (built_page.PageNotBuilt, OSError) as error:
        missing(f"the page can't be built: {error}")
    return ROOT / "web"


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Backends:
    """The embedded pair: what is behind the API makes no difference to the page."""
    folder = tmp_path_factory.mktemp("embedded")
    return Backends("embedded", f"sqlite:///{folder / 'foretell.db'}", f"sqlite:///{folder / 'broker.db'}", "")


@pytest.fixture(scope="module")
def product(web: Path, backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A whole system, with a model that has every kind of field."""
    folder = tmp_path_factory.mktemp("system")
    write_odd_model(folder / "own")
    settings = {"FORETELL_SIGNUPS_PER_ADDRESS": "1000", "FORETELL_MODELS_DIR": str(folder / "own")}
    system = backends.system(folder, **CALM, **settings)
    try:
        run_aside(system.start(workers=1))
        yield system
    finally:
        run_aside(system.stop())


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    # Of the module alone: its event loop would be in the way of tests that have one of their own.
    with sync_playwright() as running:
        yield running


#: The first that is there. The first of all is the same Chromium without windows, tabs and settings of its own, whose
#: drawing takes more of the processor than the pages do.
_PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        missing("there is no Chromium here")
    browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
    yield browser
    browser.close()


class Visitor:
    """A person with a browser, and all that went wrong in it."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.name = f"ada-{secrets.token_hex(4)}"
        #: What no page may do: break the policy, throw, ask another host.
        self.wrongs: list[str] = []
        context.set_default_timeout(PATIENCE_MS)
        context.on("weberror", lambda error: self.wrongs.append(f"threw {error.error}"))
        context.on("console", lambda message: self._heard(message.text))
        context.on("request", lambda request: self._asked(request.url))

    def _heard(self, text: str) -> None:
        if "Content Security Policy" in text or "TrustedHTML" in text or "TrustedScript" in text:
            self.wrongs.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            self.wrongs.append(f"asked {url}")

    def open(self, path: str) -> Page:
        """A new tab at an address."""
        page = self.context.new_page()
        page.goto(self.url + path)
        return page

    def signed_up(self, then: str = "/ui/models", *, by_form: bool = False) -> Page:
        """A tab of somebody who has just made an account.

        By its form only where the form is tested: its page and the typing take half a second of the processor.
        """
        if by_form:
            page = self.open("/ui/sign-up")
            page.locator("input[name=username]").fill(self.name)
            page.locator("input[name=password]").fill(PASSWORD)
            page.locator("button[type=submit]").click()
            # The number in the head stands for a session.
            expect(page.locator("header .chip")).to_contain_text("100")
        else:
            for path in ("/users", "/session"):
                answer = self.context.request.post(self.url + path, data={"username": self.name, "password": PASSWORD})
                assert answer.ok, answer.text()
            page = self.context.new_page()
        with page.expect_response("**/events/changes"):
            page.goto(self.url + then)
        # Now the page knows who it is and has asked for everything: what a test takes away is missed only by what
        # it does itself.
        expect(page.locator("header .chip")).to_contain_text("100")
        settled(page)
        return page


Visit = Callable[..., Visitor]


@pytest.fixture
def visit(chromium: Browser, product: System) -> Iterator[Visit]:
    """Open a browser: `width`, `scheme` (light, dark) and `locale` as given. Nothing may have gone wrong at the end."""
    visitors: list[Visitor] = []

    def open_browser(*, width: int = 1280, scheme: str = "light", locale: str = "en-US") -> Visitor:
        context = chromium.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,  # type: ignore[arg-type]
            locale=locale,
            timezone_id="Europe/Berlin",
        )
        visitors.append(Visitor(context, product.url))
        return visitors[-1]

    yield open_browser
    wrongs = [wrong for visitor in visitors for wrong in visitor.wrongs]
    for visitor in visitors:
        visitor.context.close()
    assert wrongs == []


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
