"""What pages that stay open cost: the memory of the browser, and the path of predictions.

    python benchmarks/page_open.py heap --minutes 60
    python benchmarks/page_open.py path --seconds 10 --rounds 6

`heap`: every page of the operator and the history of a customer, open at the same time in a real Chromium, while
predictions and log lines come. The heap of each after garbage collection, after two minutes and then at intervals, with
the nodes of its document.

The page must be built: `npm run build` in `web/`.
"""

import argparse
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, CDPSession, Page

if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.system import FLIGHT

from benchmarks.page import PASSWORD, lines_coming, running_product, signed_in

#: What an operator may have open: all of it is live, or shows what was loaded.
OPERATOR_PAGES = (
    *("", "/workers", "/traffic", "/queues", "/drift", "/alerts", "/logs", "/users", "/models", "/predictions"),
    "/journal",
)
#: Until everything that stays is there: the code is compiled, and the tables are full.
WARM_UP_S = 120.0
PREDICTIONS_PER_S = 2
LINES_PER_S = 20


@dataclass(frozen=True)
class Memory:
    """What a page holds after garbage collection."""

    heap_bytes: int
    nodes: int
    listeners: int


def memory_of(devtools: CDPSession) -> Memory:
    for _ in range(3):
        devtools.send("HeapProfiler.collectGarbage")
    counted: dict[str, Any] = devtools.send("Memory.getDOMCounters")
    used: dict[str, Any] = devtools.send("Runtime.getHeapUsage")
    return Memory(int(used["usedSize"]), counted["nodes"], counted["jsEventListeners"])


@contextmanager
def predictions_coming(url: str, name: str, per_s: float) -> Iterator[None]:
    """Predictions of an account, so many a second, until the end of the block."""
    ending = threading.Event()
    failed: list[str] = []

    def ask() -> None:
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            token = client.post("/token", data={"username": name, "password": PASSWORD}).json()
            asked = 0
            while not ending.wait(1 / per_s):
                try:
                    answer = client.post(
                        "/predictions/predict",
                        json={"model": "flight-delay", "input": FLIGHT},
                        headers={"Authorization": f"Bearer {token['access_token']}"},
                    )
                except httpx.TransportError as error:
                    failed.append(str(error))
                    continue
                asked += 1
                if answer.status_code == 401:
                    token = client.post("/token", data={"username": name, "password": PASSWORD}).json()
                elif answer.status_code >= 400:
                    failed.append(f"{answer.status_code} {answer.text[:200]}")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
        if failed:
            print(f"{len(failed)} predictions were refused, the first: {failed[0]}", flush=True)


def tell(minutes: float, pages: Mapping[str, CDPSession], before: Mapping[str, Memory]) -> dict[str, Memory]:
    """Print a line for each page, and return what was measured."""
    now = {name: memory_of(devtools) for name, devtools in pages.items()}
    print(f"after {minutes:g} minutes", flush=True)
    for name, memory in now.items():
        first = before.get(name, memory)
        print(
            f"  {name:<24} {memory.heap_bytes / 1e6:6.2f} MB {memory.heap_bytes / first.heap_bytes - 1:+7.1%}"
            f"  {memory.nodes:6,} nodes {memory.nodes - first.nodes:+6,}  {memory.listeners:5,} listeners",
            flush=True,
        )
    return now


def measure_heap(browser: Browser, url: str, monitoring: str, *, minutes: float, every: float) -> None:
    with ExitStack() as stack:
        operator = stack.enter_context(closing(signed_in(browser, url, "olga")))
        customer = stack.enter_context(closing(signed_in(browser, url, "few")))
        stack.enter_context(lines_coming(monitoring, LINES_PER_S))
        stack.enter_context(predictions_coming(url, "few", PREDICTIONS_PER_S))
        pages: dict[str, Page] = {}
        for place in OPERATOR_PAGES:
            pages[f"operator{place}"] = operator.new_page()
            pages[f"operator{place}"].goto(f"{url}/ui/operator{place}")
        pages["operator/logs"].get_by_label("Follow").check()
        for place in ("history", "balance"):
            pages[place] = customer.new_page()
            pages[place].goto(f"{url}/ui/{place}")
        devtools = {name: page.context.new_cdp_session(page) for name, page in pages.items()}
        isolates = {session.send("Runtime.getIsolateId")["id"] for session in devtools.values()}
        print(f"{len(pages)} pages in {len(isolates)} heaps; {PREDICTIONS_PER_S} predictions and", end=" ")
        print(f"{LINES_PER_S} log lines a second", flush=True)
        operator_page = pages["operator"]
        # Playwright's own wait: a sleep would not take what the browser sends.
        operator_page.wait_for_timeout(WARM_UP_S * 1000)
        began = time.monotonic()
        first = tell(0, devtools, {})
        last = first
        for number in range(1, round(minutes / every) + 1):
            operator_page.wait_for_timeout(max(0.0, began + number * every * 60 - time.monotonic()) * 1000)
            last = tell(number * every, devtools, first)
        worst = max(last, key=lambda name: last[name].heap_bytes / first[name].heap_bytes)
        change = last[worst].heap_bytes / first[worst].heap_bytes - 1
        print(f"the most after {minutes:g} minutes: {worst} {change:+.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("heap",))
    parser.add_argument("--minutes", type=float, default=60, help="how long the pages stay open")
    parser.add_argument("--every", type=float, default=5, help="minutes from one look at the heap to the next")
    options = parser.parse_args()
    with running_product(predictions=1000) as product:
        measure_heap(
            product.browser, product.system.url, product.monitoring, minutes=options.minutes, every=options.every
        )


if __name__ == "__main__":
    main()
