"""How quick the web page is, in a real Chromium over a system of its own.

    python benchmarks/page.py
    python benchmarks/page.py --predictions 100000

- Largest contentful paint with the processor slowed down four times (the DevTools protocol), as a new visitor and as a
  returning one, whose browser has the files.
- The longest task of the main thread while an operator follows the logs, of which 200 lines a second come.
- From "Older" to the rows, in a history of a million predictions and in one of forty.

What pages that stay open cost is measured by `page_open.py`.

Milliseconds: the median of some rounds, and the slowest. The page must be built: `npm run build` in `web/`.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.asides import run_aside
from tests.service_process import running_service
from tests.system import FLIGHT, System

from benchmarks.lists import History, fill_sqlite
from foretell.domain.accounts import registration
from foretell.domain.accounts.passwords import Passwords
from foretell.domain.migrations.run import migrate
from foretell.domain.operators import users
from foretell.domain.operators.journal import Actor
from foretell.kit.clock import now
from foretell.kit.database import Database

SLOWED = 4
LINES_PER_S = 200
PASSWORD = "correct horse battery"
BUILT = Path(__file__).parents[1] / "src" / "foretell" / "services" / "app" / "page" / "built"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")

LARGEST_PAINT = """new Promise((done) => {
    let last = 0;
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) last = entry.startTime;
    }).observe({type: "largest-contentful-paint", buffered: true});
    setTimeout(() => done(last), 1500);
})"""
OTHER_ROWS = "(first) => document.querySelector('tbody tr a')?.getAttribute('href') !== first"
LONG_TASKS = """() => {
    window.longTasks = [];
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.longTasks.push(entry.duration);
    }).observe({type: "longtask"});
}"""


async def prepare(database_url: str, size: int) -> None:
    """Accounts `many` with so many predictions, `few` with none yet, `other`, and the operator `olga`."""
    database = Database(database_url)
    hashed = await Passwords().hash(PASSWORD)
    try:
        await migrate(database)
        owners = []
        async with database.transaction() as connection:
            for name in ("many", "few", "other"):
                user = await registration.register(
                    connection, username=name, password_hash=hashed, grant_credits=3 * size
                )
                owners.append(user.id)
            await users.add(
                connection,
                Actor(None, "benchmark"),
                username="olga",
                password_hash=hashed,
                credits=100,
                role="operator",
            )
    finally:
        await database.close()
    many, _, other = owners
    fill_sqlite(database_url.removeprefix("sqlite:///"), History(many, other, size))


@contextmanager
def slowed(page: Page, times: int) -> Iterator[None]:
    devtools = page.context.new_cdp_session(page)
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": times})
    try:
        yield
    finally:
        devtools.send("Emulation.setCPUThrottlingRate", {"rate": 1})
        devtools.detach()


def signed_in(browser: Browser, url: str, name: str) -> BrowserContext:
    context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 800})
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(f"{url}/ui/sign-in")
    page.locator("input[name=username]").fill(name)
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("form button[type=submit]").click()
    page.locator("header .chip").wait_for()
    page.close()
    return context


def told(name: str, values: list[float], unit: str = "ms") -> None:
    print(f"{name}: median {statistics.median(values):,.0f} {unit}, slowest {max(values):,.0f} {unit}", flush=True)


def measure_paint(browser: Browser, url: str, rounds: int) -> None:
    for name, kept in (("a new visitor", False), ("a returning one", True)):
        paints = []
        for _ in range(rounds):
            with closing(browser.new_context(viewport={"width": 1280, "height": 800})) as context:
                page = context.new_page()
                if kept:
                    page.goto(f"{url}/")
                    page.locator("h1").wait_for()
                with slowed(page, SLOWED):
                    page.goto(f"{url}/")
                    paints.append(page.evaluate(LARGEST_PAINT))
        told(f"largest contentful paint, {name}, {SLOWED} times slowed", paints)


def ask_some(url: str, name: str, count: int) -> None:
    """Predictions of an account, by the API."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        token = client.post("/token", data={"username": name, "password": PASSWORD}).json()["access_token"]
        for _ in range(count):
            answer = client.post(
                "/predictions/predict",
                json={"model": "flight-delay", "input": FLIGHT},
                headers={"Authorization": f"Bearer {token}"},
            )
            answer.raise_for_status()


def measure_paging(browser: Browser, url: str, rounds: int) -> None:
    ask_some(url, "few", 40)
    for name in ("few", "many"):
        with closing(signed_in(browser, url, name)) as context:
            taken = []
            for _ in range(rounds):
                page = context.new_page()
                page.goto(f"{url}/ui/history")
                first = page.locator("tbody tr a").first
                before = first.get_attribute("href")
                started = time.perf_counter()
                page.get_by_role("link", name="Older").click()
                page.wait_for_function(OTHER_ROWS, arg=before)
                taken.append((time.perf_counter() - started) * 1000)
                page.close()
        told(f"from 'Older' to the rows, {name} predictions", taken)


@contextmanager
def lines_coming(monitoring: str, per_s: int) -> Iterator[None]:
    """Log lines, so many a second, until the end of the block."""
    ending = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=monitoring, trust_env=False, timeout=30) as client:
            number = 0
            while not ending.wait(0.1):
                lines = []
                for _ in range(per_s // 10):
                    number += 1
                    lines.append(
                        {"service": "app", "level": "INFO", "message": f"line {number}", "timestamp": now().isoformat()}
                    )
                # On a busy machine the service, whose priority is low, may not answer in time.
                with suppress(httpx.TransportError):
                    client.post("/logs", json=lines)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def measure_following(context: BrowserContext, url: str, monitoring: str, seconds: float) -> None:
    page = context.new_page()
    page.goto(f"{url}/ui/operator/logs")
    with lines_coming(monitoring, LINES_PER_S):
        page.get_by_label("Follow").check()
        page.locator("code", has_text="line ").first.wait_for()
        page.evaluate(LONG_TASKS)
        page.wait_for_timeout(seconds * 1000)
        tasks: list[float] = page.evaluate("window.longTasks")
        shown = page.locator("tbody tr").count()
    page.close()
    longest = f"{max(tasks):,.0f} ms" if tasks else "none above 50 ms"
    print(f"{LINES_PER_S} lines a second for {seconds:g} s ({shown} shown): longest task {longest}", flush=True)


def measure_sizes() -> None:
    sizes = {path.name: path.stat().st_size for path in (BUILT / "assets").glob("*.js.br")}
    document = (BUILT / "index.html").read_text(encoding="utf-8")
    first = sum(size for name, size in sizes.items() if name.removesuffix(".br") in document or name.startswith("en-"))
    total = sum(sizes.values())
    print(f"JavaScript, compressed: {first / 1024:.1f} KiB for the first page, {total / 1024:.1f} KiB in all")


@dataclass(frozen=True)
class Product:
    """A running system with its accounts, and a browser."""

    browser: Browser
    system: System
    monitoring: str


@contextmanager
def running_product(*, predictions: int) -> Iterator[Product]:
    """A system of its own whose user `many` has so many predictions, and a Chromium."""
    programs = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
    program = next(filter(None, map(shutil.which, programs)), None)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        database_url = f"sqlite:///{folder / 'foretell.db'}"
        run_aside(prepare(database_url, predictions))
        with running_service("monitoring", folder) as monitoring:
            system = System(
                folder,
                database_url=database_url,
                broker_url=f"sqlite:///{folder / 'broker.db'}",
                FORETELL_MONITORING_URL=monitoring.url,
            )
            try:
                run_aside(system.start(workers=2))
                browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
                yield Product(browser, system, monitoring.url)
                browser.close()
            finally:
                run_aside(system.stop())


def run(options: argparse.Namespace) -> None:
    measure_sizes()
    with running_product(predictions=options.predictions) as product:
        url = product.system.url
        measure_paint(product.browser, url, options.rounds)
        measure_paging(product.browser, url, options.rounds)
        with closing(signed_in(product.browser, url, "olga")) as context:
            measure_following(context, url, product.monitoring, options.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--predictions", type=int, default=1_000_000, help="of the long history")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=30, help="how long logs are followed")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
