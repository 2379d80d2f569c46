"""What pages that stay open cost: the memory of the browser, and the path of predictions.

    python benchmarks/page_open.py heap --minutes 60
    python benchmarks/page_open.py path --seconds 10 --rounds 6

`heap`: every page of the operator and the history of a customer, open at the same time in a real Chromium, while
predictions and log lines come. The heap of each after garbage collection, after a thousand loads and then at intervals,
with the nodes of its document.

`path`: the processor time of app, dispatcher and workers, at rest and while one account asks at a fixed rate, in turns
with no page open, with all pages of the operator and the history of another account, and with the history of the
account itself. Chromium and the monitoring service (of the lowest priority) are not counted: they do not stand on the
way of a prediction. So the figures say what the pages take from predictions on a machine that is busy with them.

The page must be built: `npm run build` in `web/`.
"""

import argparse
import json
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from playwright.sync_api import Browser, CDPSession, Page

if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.asides import run_aside
from tests.system import FLIGHT, System

from benchmarks.page import PASSWORD, Product, lines_coming, running_product, signed_in
from foretell.client.load import put_load, request

#: What an operator may have open: all of it is live, or shows what was loaded.
OPERATOR_PAGES = (
    *("", "/workers", "/traffic", "/queues", "/drift", "/alerts", "/logs", "/users", "/models", "/predictions"),
    "/journal",
)
#: Until everything that stays is there: tables are full, and what V8 keeps of the code that runs has stopped to grow,
#: which takes some hundred loads. Live pages load every 3 s, and whenever they come into sight.
WARM_UP_LOADS = 1000
WARM_UP_S = 120.0
LOAD_OFTEN = """(times) => void (async () => {
    for (let each = 0; each < times; each += 1) {
        document.dispatchEvent(new Event("visibilitychange"));
        await new Promise((done) => setTimeout(done, 100));
    }
})()"""
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
    grant(url, "few", round(PREDICTIONS_PER_S * (minutes + 10) * 60))
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
        for page in pages.values():
            page.evaluate(LOAD_OFTEN, WARM_UP_LOADS)
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


#: What is open, by name: addresses of the operator and of a customer.
SETTINGS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "no page": (),
    "operator's pages, another's history": (
        *(("olga", f"/ui/operator{place}") for place in OPERATOR_PAGES),
        ("few", "/ui/history"),
    ),
    "the account's own history": (("many", "/ui/history"),),
}


@dataclass(frozen=True)
class Cost:
    """Processor time of the services of the path during a load."""

    ms_per_s: float
    us_per_prediction: float
    p50_ms: float
    #: `us_per_prediction` by service.
    shares: Mapping[str, float]


def token_of(url: str, name: str) -> str:
    form = {"username": name, "password": PASSWORD}
    answer = httpx.post(f"{url}/token", data=form, trust_env=False, timeout=60)
    return str(answer.raise_for_status().json()["access_token"])


def grant(url: str, name: str, credits: int) -> None:
    """Give an account so many credits, as the operator."""
    headers = {"Authorization": f"Bearer {token_of(url, 'olga')}"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
        (user,) = client.get("/admin/users", params={"name": name}).raise_for_status().json()["items"]
        wanted = {"credits": credits, "note": "For the benchmark"}
        client.post(f"/admin/users/{user['id']}/grant", json=wanted).raise_for_status()


async def measure_cost(system: System, token: str, *, seconds: float, per_s: float) -> Cost:
    body = json.dumps({"model": "flight-delay", "input": FLIGHT}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    services = [(running.service, psutil.Process(running.process.pid)) for running in system.alive()]

    def used_s() -> Counter[str]:
        used: Counter[str] = Counter()
        for name, process in services:
            used[name] += sum(process.cpu_times()[:2])
        return used

    before, began = used_s(), time.perf_counter()
    load = await put_load(
        system.url,
        clients=32,
        seconds=seconds,
        next_request=lambda: request("POST", "/predictions/predict", headers, body),
        per_second=per_s,
    )
    await system.drain()
    used, took = used_s() - before, time.perf_counter() - began
    in_all = used.total()
    accepted = load.statuses.get(202, 0)
    if load.statuses.keys() != {202}:
        raise RuntimeError(f"not everything was accepted: {load.statuses}")
    shares = {name: each / accepted * 1e6 for name, each in used.items()}
    return Cost(in_all / took * 1000, in_all / accepted * 1e6, load.percentile_s(50) * 1000, shares)


def measure_rest(product: Product, *, seconds: float) -> None:
    """Processor time of the path's services while nothing is asked: other work of the machine disturbs it less."""
    services = [psutil.Process(running.process.pid) for running in product.system.alive()]
    for name, places in SETTINGS.items():
        with opened(product, places):
            before, began = sum(sum(each.cpu_times()[:2]) for each in services), time.perf_counter()
            time.sleep(seconds)
            used = sum(sum(each.cpu_times()[:2]) for each in services) - before
        print(f"at rest, {name}: {used / (time.perf_counter() - began) * 1000:,.0f} ms a second", flush=True)


@contextmanager
def opened(product: Product, places: tuple[tuple[str, str], ...]) -> Iterator[None]:
    """Pages that are open, by user and address, and have loaded."""
    with ExitStack() as stack:
        contexts = {
            user: stack.enter_context(closing(signed_in(product.browser, product.system.url, user)))
            for user in sorted({user for user, _ in places})
        }
        for user, place in places:
            contexts[user].new_page().goto(product.system.url + place)
        time.sleep(3)
        yield


def measure_path(product: Product, *, seconds: float, rounds: int, per_s: float) -> None:
    url = product.system.url
    token = token_of(url, "many")
    grant(url, "many", round(seconds * per_s * (rounds + 1) * len(SETTINGS) * 2))
    costs: dict[str, list[Cost]] = {name: [] for name in SETTINGS}
    for number in range(rounds + 1):
        for name, places in SETTINGS.items():
            with opened(product, places):
                cost = run_aside(measure_cost(product.system, token, seconds=seconds, per_s=per_s))
                # The first round warms up.
                if number:
                    costs[name].append(cost)
                    shares = ", ".join(f"{service} {share:,.0f}" for service, share in sorted(cost.shares.items()))
                    print(
                        f"round {number}, {name}: {cost.us_per_prediction:,.0f} us a prediction ({shares})", flush=True
                    )
    base = statistics.median(cost.us_per_prediction for cost in costs["no page"])
    for name, found in costs.items():
        each = statistics.median(cost.us_per_prediction for cost in found)
        print(
            f"{name:<36} {each:7,.0f} us a prediction {each / base - 1:+7.1%}"
            f"  {statistics.median(cost.ms_per_s for cost in found):5,.0f} ms a second"
            f"  p50 {statistics.median(cost.p50_ms for cost in found):.1f} ms"
            f"  ({min(cost.us_per_prediction for cost in found):,.0f} to"
            f" {max(cost.us_per_prediction for cost in found):,.0f})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("heap", "path"))
    parser.add_argument("--minutes", type=float, default=60, help="how long the pages stay open")
    parser.add_argument("--every", type=float, default=5, help="minutes from one look at the heap to the next")
    parser.add_argument("--seconds", type=float, default=10, help="of each load on the path")
    parser.add_argument("--rounds", type=int, default=5, help="of the path")
    parser.add_argument("--per-s", type=float, default=300, help="predictions a second on the path")
    options = parser.parse_args()
    if options.what == "path":
        with running_product(predictions=1000) as product:
            measure_rest(product, seconds=2 * options.seconds)
            measure_path(product, seconds=options.seconds, rounds=options.rounds, per_s=options.per_s)
        return
    with running_product(predictions=1000) as product:
        measure_heap(
            product.browser, product.system.url, product.monitoring, minutes=options.minutes, every=options.every
        )


if __name__ == "__main__":
    main()
