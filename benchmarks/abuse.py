"""What a service takes, and how it answers others, while somebody tries to make it take more.

One process of the model service, or of another one, on a port of its own. Each try runs for some seconds; meanwhile its
memory is read and `/health/live` is asked. Prints a row per try: the largest memory in times that at rest, the slowest
of those answers, and what was answered to the try itself.

    python benchmarks/abuse.py [--service model|preprocessing|app] [--seconds 4] [--only NAME]
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.service_process import running_service

MIB = 1024 * 1024
FLIGHT = {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0}
RAW_FLIGHT = {"carrier": "AA", "departure_time": "09:30", "distance_miles": 550.0, "weather_code": 1}
#: Where a body is taken without a token, and what is asked there in good faith.
TARGETS: dict[str, tuple[str, object]] = {
    "model": ("/models/flight-delay/predict", FLIGHT),
    "preprocessing": ("/models/flight-delay/preprocess", RAW_FLIGHT),
    "app": ("/token", {"username": "nobody", "password": "nothing at all"}),
}
INFER = "/v2/models/flight-delay/infer"
INPUTS = [
    ("carrier", "BYTES", "AA"),
    ("dep_hour", "INT64", 9),
    ("distance", "FP64", 550.0),
    ("weather_delay", "FP64", 0.0),
]


def head(path: str, length: int, *lines: str) -> bytes:
    more = "".join(f"{line}\r\n" for line in lines)
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def infer(rows: int = 1, **changes: object) -> bytes:
    tensors = [{"name": n, "datatype": kind, "shape": [rows], "data": [value] * rows} for n, kind, value in INPUTS]
    return json.dumps({"inputs": tensors, **changes}).encode()


def filled(opening: str, item: str, closing: str, size: int) -> bytes:
    """A body of about `size` bytes: `item` again and again, with commas."""
    return (opening + ",".join([item] * (size // (len(item) + 1))) + closing).encode()


@dataclass
class Attacker:
    """Connections to one port, and what was said on them."""

    port: int
    until: float
    heard: Counter[str] = field(default_factory=Counter)

    @property
    def over(self) -> bool:
        return time.monotonic() > self.until

    async def say(self, *parts: bytes, pause_s: float = 0.0, listen: bool = True) -> None:
        """One connection: the parts one after the other, then the status that comes back."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError as error:
            self.heard[type(error).__name__] += 1
            return
        try:
            for part in parts:
                writer.write(part)
                await asyncio.wait_for(writer.drain(), 5)
                await asyncio.sleep(pause_s)
            if listen:
                line = await asyncio.wait_for(reader.readline(), 10)
                self.heard[line.decode("latin-1").split(" ")[1] if b" " in line else "closed"] += 1
            else:
                self.heard["hung up"] += 1
        except (OSError, TimeoutError) as error:
            self.heard[type(error).__name__] += 1
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def again(self, count: int, one: Callable[[], Awaitable[None]]) -> None:
        """`count` at a time, until the time is over."""

        async def go_on() -> None:
            while not self.over:
                await one()

        await asyncio.gather(*(go_on() for _ in range(count)))


Try = Callable[[Attacker], Awaitable[None]]


def bodies(path: str, body: bytes, *, at_once: int = 8) -> Try:
    """The same body, from several at once."""
    return lambda a: a.again(at_once, lambda: a.say(head(path, len(body)), body))


async def hang_up(a: Attacker, path: str) -> None:
    part = b"x" * MIB
    await a.again(50, lambda: a.say(head(path, 16 * MIB), *[part] * 15, listen=False))


async def small_chunks(a: Attacker, path: str) -> None:
    start = f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    await a.again(4, lambda: a.say(start, *[b"2\r\n[[\r\n" * 50_000] * 10, listen=False))


async def trailers(a: Attacker, path: str) -> None:
    start = f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n".encode()
    await a.again(20, lambda: a.say(start, *[b"X: yyyyyyyyyyyyyyyy\r\n" * 50_000] * 20))


async def heads(a: Attacker, path: str) -> None:
    start = f"POST {path} HTTP/1.1\r\n".encode()
    await a.again(50, lambda: a.say(start, *[b"X: " + b"x" * 65_000 + b"\r\n"] * 20))


async def slow_heads(a: Attacker, path: str) -> None:
    start = f"POST {path} HTTP/1.1\r\nHost: a\r\nX: ".encode() + b"x" * 60_000
    await a.again(1500, lambda: a.say(start, pause_s=max(0.1, a.until - time.monotonic()), listen=False))


async def slow_bodies(a: Attacker, path: str) -> None:
    start = head(path, 64_000) + b"[" * 60_000
    await a.again(1500, lambda: a.say(start, pause_s=max(0.1, a.until - time.monotonic()), listen=False))


async def idle(a: Attacker) -> None:
    await a.again(3000, lambda: a.say(b"", pause_s=max(0.1, a.until - time.monotonic()), listen=False))


@cache
def tries(service: str) -> dict[str, Try]:
    path, value = TARGETS[service]
    flight = json.dumps(value)
    found: dict[str, Try] = {
        "one flight": bodies(path, flight.encode()),
        "bodies of 15 MiB, hung up": partial(hang_up, path=path),
        "bodies in chunks of 2 bytes": partial(small_chunks, path=path),
        "fields after a body, without end": partial(trailers, path=path),
        "heads without end": partial(heads, path=path),
        "1,500 heads, slowly": partial(slow_heads, path=path),
        "1,500 bodies, slowly": partial(slow_bodies, path=path),
        "3,000 connections, silent": idle,
        "[[],[],… of 15 MiB": bodies(path, filled("[", "[]", "]", 15 * MIB)),
        "[{},{},… of 15 MiB": bodies(path, filled("[", "{}", "]", 15 * MIB)),
        '[{"":0},{"":0},… of 800 KiB': bodies(path, filled("[", '{"":0}', "]", 800 * 1024), at_once=40),
        "[[],[],… of 60 KiB, 200 at once": bodies(path, filled("[[", "[]", "]]", 60 * 1024), at_once=200),
        "10,000 flights, 20 at once": bodies(path, filled("[", flight, "]", 10_000 * len(flight)), at_once=20),
        "depth 100,000": bodies(path, b"[" * 100_000),
        "16 MiB of nothing": bodies(path, b"\0" * (16 * MIB - 1)),
        "more than 16 MiB": bodies(path, b" " * (17 * MIB)),
    }
    return found | (_tensors() if service == "model" else {})


def _tensors() -> dict[str, Try]:
    huge = infer().replace(b'"shape": [1]', b'"shape": [%s]' % b",".join([b"9" * 17] * 40_000))
    numbers = json.dumps(
        {"inputs": [{"name": "distance", "datatype": "FP64", "shape": [1], "data": [0.123456] * 10**6}]}
    )
    binary = infer()[:-1] + b" " * 10 + b"}"
    return {
        '{"a":[[],… of 4 MiB as a tensor': bodies(
            INFER, filled('{"inputs":[{"name":"x","data":[', "[]", "]}]}", 4 * MIB)
        ),
        "10,000 flights as tensors, 20 at once": bodies(INFER, infer(10_000), at_once=20),
        "a tensor of a million numbers": bodies(INFER, numbers.encode(), at_once=8),
        "40,000 huge dimensions": bodies(INFER, huge),
        "an output 3,000 times": bodies(INFER, infer(outputs=[{"name": "probability"}] * 3000)),
        "16 MiB of nothing as tensors": bodies(INFER, b"\0" * (16 * MIB - 1)),
        "binary that is none": bodies(INFER, binary + bytes(15 * MIB)),
    }


def attack(service: str, name: str, port: int, seconds: float) -> Counter[str]:
    """One try, in a process of its own: who asks meanwhile must not wait for us."""
    begin = tries(service)[name]
    attacker = Attacker(port, time.monotonic() + seconds)
    asyncio.run(begin(attacker))
    return attacker.heard


@dataclass
class Watched:
    """What one process took and how it answered, since `begin`."""

    process: psutil.Process
    url: str
    largest: int = 0
    slowest_s: float = 0.0

    def watch(self, over: Callable[[], bool]) -> None:
        """Look until `over`."""
        # One connection, kept: what new ones cost is not the question.
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while not over():
                self.largest = max(self.largest, self.process.memory_info().rss)
                started = time.perf_counter()
                with suppress(httpx.TransportError):
                    client.get("/health/live").raise_for_status()
                self.slowest_s = max(self.slowest_s, time.perf_counter() - started)
                time.sleep(0.01)


def main() -> None:
    """Run them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--service", choices=TARGETS, default="model")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", default="")
    chosen = parser.parse_args()
    table = Table("try", "before, MiB", "most, MiB", "times rest", "slowest live, ms", "answers")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(chosen.service, Path(folder)) as service,
        ProcessPoolExecutor(1) as attackers,
    ):
        process = psutil.Process(service.process.pid)
        attackers.submit(attack, chosen.service, "one flight", service.port, 2.0).result()
        rest = process.memory_info().rss
        table.add_row("at rest", "", f"{rest / MIB:.0f}", "1.00", "", "")
        for name in tries(chosen.service):
            if chosen.only not in name:
                continue
            # What the last one took is given back within a second.
            time.sleep(1.5)
            before = process.memory_info().rss
            watched = Watched(process, service.url)
            attacking = attackers.submit(attack, chosen.service, name, service.port, chosen.seconds)
            watched.watch(attacking.done)
            answers = ", ".join(f"{what}: {count}" for what, count in attacking.result().most_common(4))
            row = (
                f"{before / MIB:.0f}",
                f"{watched.largest / MIB:.0f}",
                f"{watched.largest / rest:.2f}",
                f"{watched.slowest_s * 1000:.0f}",
            )
            table.add_row(name, *row, answers)
        time.sleep(2)
        left = process.memory_info().rss
        table.add_row("afterwards", "", f"{left / MIB:.0f}", f"{left / rest:.2f}", "", "")
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
