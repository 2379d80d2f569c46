"""What it costs a model service to be observed for drift: two of them side by side, asked in turns.

    python benchmarks/observing.py --rounds 20 --seconds 2

They differ in FORETELL_OBSERVED_ROWS_PER_S alone (0, and what is usual), a third is another one without, to see what
the machine makes of two that are alike. Compare ratios of one run and nothing else.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(ROOT))
from benchmarks import serving, shipping  # noqa: E402

ROWS = {"unobserved": "0", "unobserved again": "0", "observed": "50"}


@dataclass
class Side:
    """One service, and what was measured of it in each round."""

    ports: list[int]
    family: list[Any]
    server: serving.Server
    cpu_us: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)

    async def run(self, clients: int, seconds: float) -> None:
        """Put the load on it once."""
        before_s = serving._cpu_s(self.family)
        load = await serving._load(self.ports, self.server, clients, seconds)
        self.cpu_us.append((serving._cpu_s(self.family) - before_s) / len(load.latencies_s) * 1e6)
        self.per_s.append(load.per_second)


async def measure(url: str, *, clients: int, rounds: int, seconds: float) -> dict[str, Side]:
    """All rounds."""
    sides: dict[str, Side] = {}
    with tempfile.NamedTemporaryFile(prefix="observing-", suffix=".log") as log:
        async with AsyncExitStack() as stack:
            for name, rows in ROWS.items():
                environment = {"FORETELL_OBSERVED_ROWS_PER_S": rows, "FORETELL_MONITORING_URL": url}
                server = replace(serving.SERVERS["foretell"], environment=environment)
                started = serving._started(server, sys.executable, log)
                ports, processes, _ = await stack.enter_async_context(started)
                family = [member.process for each in processes for member in serving.family_of(server.name, each)]
                sides[name] = Side(ports, family, server)
            for side in sides.values():
                await serving._load(side.ports, side.server, clients, serving.WARM_UP_S)
            for _ in range(rounds):
                # At random: whoever always came in the middle would never find the caches warm.
                for side in random.sample(list(sides.values()), len(sides)):
                    await side.run(clients, seconds)
    return sides


def main() -> None:
    """Measure and show."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--seconds", type=float, default=2.0)
    arguments.add_argument("--clients", type=int, default=serving.CLIENTS)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, shipping.receiver("sink", Path(folder)) as (url, _):
        sides = asyncio.run(measure(url, clients=given.clients, rounds=given.rounds, seconds=given.seconds))
    plain = sides["unobserved"]
    for name, side in sides.items():
        cpu = median(mine / its for mine, its in zip(side.cpu_us, plain.cpu_us, strict=True))
        rate = median(mine / its for mine, its in zip(side.per_s, plain.per_s, strict=True))
        print(
            f"{name:18}{median(side.per_s):8.0f} a second ({rate:.3f}) {median(side.cpu_us):8.1f} us each ({cpu:.3f}),"
            f" load {os.getloadavg()[0]:.1f}"
        )


if __name__ == "__main__":
    main()
