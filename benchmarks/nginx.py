"""What nginx in front costs: the same load with and without it, in turns.

    python benchmarks/nginx.py --rounds 5 --seconds 6
    python benchmarks/nginx.py --program /opt/nginx/sbin/nginx

Two loads of 64 clients: predictions (embedded database and broker), and the model service alone, which does so little
for a request that whatever stands before it shows most. Everything shares this machine, the load too: compare the
figures of one run with one another. What nginx itself takes of the processor for a request is shown besides, since it
says what the ratio would be where nginx has a processor of its own.
"""

import argparse
import itertools
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # The tests' nginx is found from the repository's root.
    sys.path.insert(0, str(ROOT))
from tests.ports import free_port  # noqa: E402
from tests.services_nginx import PrivateNginx, running  # noqa: E402

from benchmarks.peers import flight  # noqa: E402
from benchmarks.way import ORDER, running_way  # noqa: E402
from foretell.client.load import put_load, request  # noqa: E402

_CLIENTS = 64
_FLIGHTS = 997

console = Console(stderr=True)


@dataclass
class Compared:
    """One load, with and without nginx, round by round."""

    what: str
    direct_per_s: list[float] = field(default_factory=list)
    through_per_s: list[float] = field(default_factory=list)
    nginx_us: list[float] = field(default_factory=list)
    broken: int = 0

    @property
    def ratio(self) -> float:
        """The middle one of the rounds' ratios: neighbours in time share what else the machine does."""
        pairs = zip(self.through_per_s, self.direct_per_s, strict=True)
        return statistics.median(through / direct for through, direct in pairs)


@dataclass(frozen=True)
class Target:
    """Where one load goes."""

    what: str
    direct: str
    through: str
    next_request: Callable[[], bytes]
    through_request: Callable[[], bytes]


@asynccontextmanager
async def _targets(program: str, workers: int) -> AsyncIterator[tuple[list[Target], PrivateNginx]]:
    async with running_way("embedded", workers=workers) as way:
        model_port = free_port()
        way.system.spawn("model", port=model_port)
        await way.system.wait_healthy()
        folder = Path(tempfile.mkdtemp(prefix="foretell-bench-nginx-"))
        # Without a bound for each address: there is only one here.
        nginx = PrivateNginx(
            program,
            folder,
            {
                "APP_UPSTREAM": f"127.0.0.1:{way.system.app_port}",
                "MODEL_UPSTREAM": f"127.0.0.1:{model_port}",
                "NGINX_RATE": "0",
                "NGINX_WORKERS": "auto",
            },
        )
        _, token = await way.system.new_user(credits=1_000_000_000)
        order = json.dumps(ORDER).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        predict = request("POST", "/predictions/predict", headers, order)
        bodies = [json.dumps(flight.sample(number)).encode() for number in range(_FLIGHTS)]
        rows = {path: [request("POST", path, {}, body) for body in bodies] for path in ("/predict", "/model/predict")}
        try:
            with running(nginx):
                yield (
                    [
                        Target("predictions", way.system.url, nginx.url, lambda: predict, lambda: predict),
                        Target(
                            "model service",
                            f"http://127.0.0.1:{model_port}",
                            nginx.url,
                            itertools.cycle(rows["/predict"]).__next__,
                            itertools.cycle(rows["/model/predict"]).__next__,
                        ),
                    ],
                    nginx,
                )
        finally:
            shutil.rmtree(folder)


def _nginx_cpu_s(nginx: PrivateNginx) -> float:
    family = psutil.Process(int((nginx.run / "nginx.pid").read_text())).children()
    return sum(sum(each.cpu_times()[:2]) for each in family if "worker process" in " ".join(each.cmdline()))


async def compare(program: str, *, rounds: int, seconds: float, workers: int) -> list[Compared]:
    """Both loads, in turns; who comes first changes from round to round."""
    async with _targets(program, workers) as (targets, nginx):
        found = [Compared(target.what) for target in targets]
        async with httpx.AsyncClient() as client:
            for target in targets:
                assert (await client.get(f"{target.direct}/health")).status_code == 200
        for turn in range(rounds):
            for target, compared in zip(targets, found, strict=True):
                for through in (True, False) if turn % 2 else (False, True):
                    cpu_s = _nginx_cpu_s(nginx)
                    load = await put_load(
                        target.through if through else target.direct,
                        clients=_CLIENTS,
                        seconds=seconds,
                        next_request=target.through_request if through else target.next_request,
                    )
                    assert set(load.statuses) <= {200, 202}, load.statuses
                    compared.broken += load.broken_connections
                    answered = sum(load.statuses.values())
                    (compared.through_per_s if through else compared.direct_per_s).append(load.per_second)
                    if through:
                        compared.nginx_us.append((_nginx_cpu_s(nginx) - cpu_s) / answered * 1e6)
                console.print(
                    f"{compared.what}: {compared.through_per_s[-1]:,.0f} of {compared.direct_per_s[-1]:,.0f} a second"
                )
        return found


def show(found: list[Compared], version: str) -> None:
    """Print the table."""
    table = Table(title=f"Through {version}, {_CLIENTS} clients", title_justify="left")
    for column in ("load", "direct/s", "through/s", "ratio", "of the rounds", "nginx us", "broken"):
        table.add_column(column, justify="left" if column == "load" else "right")
    for each in found:
        ratios = [a / b for a, b in zip(each.through_per_s, each.direct_per_s, strict=True)]
        table.add_row(
            each.what,
            f"{statistics.median(each.direct_per_s):,.0f}",
            f"{statistics.median(each.through_per_s):,.0f}",
            f"{each.ratio:.2f}",
            f"{min(ratios):.2f}-{max(ratios):.2f}",
            f"{statistics.median(each.nginx_us):.0f}",
            str(each.broken),
        )
    Console(width=100).print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--program", default=shutil.which("nginx") or "/usr/sbin/nginx")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = uvloop.run(
        compare(arguments.program, rounds=arguments.rounds, seconds=arguments.seconds, workers=arguments.workers)
    )
    if arguments.json:
        print(json.dumps([asdict(each) | {"ratio": each.ratio} for each in found]))
    else:
        show(found, arguments.program)


if __name__ == "__main__":
    main()
