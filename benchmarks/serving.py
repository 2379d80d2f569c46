"""The model service beside its peers: the flight-delay model over HTTP, one row a request as JSON.

    python benchmarks/serving.py --seconds 5 --rounds 3
    python benchmarks/serving.py hello foretell mosec --json

Each server runs alone with the load generator on the same machine, one after the other, and again in each round;
compare figures of one run with one another and with nothing else. A peer's packages are installed when it is first
asked for (`peers/environments.py`); `peers/SERVING.md` says how each is set up.
"""

import argparse
import asyncio
import itertools
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(ROOT))
from benchmarks.peers import environments, flight  # noqa: E402
from benchmarks.peers.processes import PeerFailed, family_of, running  # noqa: E402
from benchmarks.peers.run import tail  # noqa: E402
from foretell.client.load import Load, put_load, request  # noqa: E402

CLIENTS = 32
START_TIMEOUT_S = 60.0
WARM_UP_S = 1.0
#: Different flights, so that nobody answers from a cache.
FLIGHTS = 997
BATCH_ROWS = 1000

console = Console(stderr=True)


def _features(number: int) -> Any:
    return flight.sample(number)


def _tensors(number: int) -> Any:
    datatypes = {"carrier": "BYTES", "dep_hour": "INT64", "distance": "FP64", "weather_delay": "FP64"}
    return {
        "inputs": [
            {"name": name, "datatype": datatypes[name], "shape": [1, 1], "data": [value]}
            for name, value in flight.sample(number).items()
        ]
    }


@dataclass(frozen=True)
class Server:
    """How a server is started, and what is asked of it."""

    name: str
    #: Arguments of its Python; `{port}` stands for its port, `{second_port}` and `{third_port}` for two more.
    command: tuple[str, ...]
    path: str = "/predict"
    body: Callable[[int], Any] = _features
    environment: dict[str, str] = field(default_factory=dict)
    #: Whether it runs in our own environment.
    ours: bool = False
    processes: int = 1


_UVICORN = ("-m", "uvicorn", "--port", "{port}", "--no-access-log", "--log-level", "warning")
_HERE = "benchmarks.peers"
SERVERS = {
    server.name: server
    for server in (
        Server("hello", (*_UVICORN, f"{_HERE}.hello_app.app:app"), ours=True),
        Server("foretell", ("-m", "foretell.cli", "serve", "model"), ours=True),
        Server("foretell-2", ("-m", "foretell.cli", "serve", "model"), ours=True, processes=2),
        Server("mosec", ("-m", f"{_HERE}.mosec_app.app", "--port", "{port}"), path="/inference"),
        Server(
            "mlserver",
            (
                "-c",
                "import mlserver.cli; mlserver.cli.main()",
                "start",
                str(environments.HERE / "mlserver_app" / "model"),
            ),
            path="/v2/models/flight/infer",
            body=_tensors,
            environment={
                "MLSERVER_HTTP_PORT": "{port}",
                "MLSERVER_GRPC_PORT": "{second_port}",
                "MLSERVER_METRICS_PORT": "{third_port}",
            },
        ),
        Server(
            "bentoml",
            ("-m", "bentoml", "serve", f"{_HERE}.bentoml_app.app:Flight", "--port", "{port}"),
            body=lambda number: {"flights": [flight.sample(number)]},
            environment={"BENTOML_DO_NOT_TRACK": "True"},
        ),
        Server("litserve", ("-m", f"{_HERE}.litserve_app.app", "{port}")),
        Server("fastapi", (*_UVICORN, f"{_HERE}.fastapi_app.app:app"), environment={"OMP_NUM_THREADS": "1"}),
    )
}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _requests(server: Server) -> Callable[[], bytes]:
    headers = {"Content-Type": "application/json"}
    made = [
        request("POST", server.path, headers, msgspec.json.encode(server.body(number))) for number in range(FLIGHTS)
    ]
    return itertools.cycle(made).__next__


async def _until_ready(server: Server, port: int, process: asyncio.subprocess.Process) -> None:
    """Return when a first prediction is answered with 200. Raises `PeerFailed`."""
    end = time.monotonic() + START_TIMEOUT_S
    asked = _requests(server)().replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    while time.monotonic() < end:
        if process.returncode is not None:
            raise PeerFailed(f"{server.name} ended with status {process.returncode}")
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(asked)
            line = await reader.readline()
            writer.close()
            if b" 200 " in line:
                return
        except OSError:
            pass
        await asyncio.sleep(0.01)
    raise PeerFailed(f"{server.name} gave no prediction within {START_TIMEOUT_S:.0f} s")


def _measured(load: Load) -> dict[str, Any]:
    wrong = {status: times for status, times in load.statuses.items() if status != 200}
    if wrong or load.broken_connections:
        raise PeerFailed(f"answers {wrong}, {load.broken_connections} broken connections")
    return {
        "per_s": round(load.per_second),
        "p50_ms": round(load.percentile_s(50) * 1000, 3),
        "p99_ms": round(load.percentile_s(99) * 1000, 3),
    }


def _memory_mb(members: list[psutil.Process]) -> float:
    # What processes share counts once.
    return round(float(sum(member.memory_full_info().pss for member in members)) / 2**20, 1)


async def _load(ports: list[int], server: Server, clients: int, seconds: float) -> Load:
    """Load of all `clients` together, spread over the ports."""
    parts = await asyncio.gather(
        *(
            put_load(
                f"http://127.0.0.1:{port}",
                clients=clients // len(ports),
                seconds=seconds,
                next_request=_requests(server),
            )
            for port in ports
        )
    )
    whole = Load(duration_s=max(part.duration_s for part in parts))
    for part in parts:
        whole.latencies_s += part.latencies_s
        whole.broken_connections += part.broken_connections
        for status, times in part.statuses.items():
            whole.statuses[status] = whole.statuses.get(status, 0) + times
    return whole


async def measure(server: Server, *, seconds: float) -> dict[str, Any]:
    """Start `server`, measure it and end it. Raises `PeerFailed`."""
    python = sys.executable if server.ours else str(await asyncio.to_thread(environments.python_of, server.name))
    with tempfile.NamedTemporaryFile(prefix=f"serving-{server.name}-", suffix=".log") as log:
        try:
            async with _started(server, python, log) as (ports, processes, ready_s):
                return {"kind": "server", "name": server.name, **await _figures(server, ports, processes, seconds)} | {
                    "ready_s": round(ready_s, 2)
                }
        except (PeerFailed, TimeoutError) as error:
            raise PeerFailed(
                f"{server.name}: {error or 'no answer in time'}; its log ends:\n{tail(log.name)}"
            ) from error


async def _figures(server: Server, ports: list[int], processes: list[Any], seconds: float) -> dict[str, Any]:
    """Under load, alone, and what it takes of the machine."""
    family = [member.process for process in processes for member in family_of(server.name, process)]
    await _load(ports, server, CLIENTS, WARM_UP_S)
    before_s = _cpu_s(family)
    load = await _load(ports, server, CLIENTS, seconds)
    cpu_us = (_cpu_s(family) - before_s) / max(1, len(load.latencies_s)) * 1e6
    lone = await _load(ports[:1], server, 1, max(1.0, seconds / 3))
    figures = {
        **_measured(load),
        "cpu_us": round(cpu_us, 1),
        "lone_p50_ms": _measured(lone)["p50_ms"],
        "memory_mb": _memory_mb(family),
        "load_average": round(os.getloadavg()[0], 1),
    }
    return figures | (await _measure_batch(ports[0]) if server.name == "foretell" else {})


def _cpu_s(family: list[psutil.Process]) -> float:
    return float(sum(times.user + times.system for times in (member.cpu_times() for member in family)))


@asynccontextmanager
async def _started(server: Server, python: str, log: IO[bytes]) -> AsyncIterator[tuple[list[int], list[Any], float]]:
    """The server's ports and processes, ready, and the seconds that took."""
    begun = time.monotonic()
    ports, processes = [], []
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="serving-"))
        for _ in range(server.processes):
            port = _free_port()
            known = {"port": str(port), "second_port": str(_free_port()), "third_port": str(_free_port())}
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PEER_MODEL": str(flight.MODEL),
                "FORETELL_PORT": str(port),
                "FORETELL_DATA_DIR": folder,
                **{name: value.format(**known) for name, value in server.environment.items()},
            }
            command = [python, *(word.format(**known) for word in server.command)]
            ports.append(port)
            processes.append(await stack.enter_async_context(running(command, environment, log)))
        for port, process in zip(ports, processes, strict=True):
            await _until_ready(server, port, process)
        yield ports, processes, time.monotonic() - begun


async def _measure_batch(port: int) -> dict[str, Any]:
    """1,000 rows in one request, beside one raw call of onnxruntime with the JSON around it; medians, in ms."""
    rows = [flight.sample(number) for number in range(BATCH_ROWS)]
    body = msgspec.json.encode({"features": rows})
    asked = request("POST", "/models/flight-delay/predict", {"Content-Type": "application/json"}, body)
    model = flight.FlightModel(flight.MODEL)
    matrix = model.matrix(rows)
    outputs = [{"prediction": 0, "probability": 0.1234}] * BATCH_ROWS
    served, raw = [], []
    # In turns, since a machine that others use too is now faster and now slower.
    for _ in range(12):
        load = await put_load(f"http://127.0.0.1:{port}", clients=1, seconds=0.15, next_request=lambda: asked)
        served.append(_measured(load)["p50_ms"])
        for _ in range(10):
            begun = time.perf_counter()
            msgspec.json.decode(body)
            model.run(matrix)
            msgspec.json.encode({"outputs": outputs})
            raw.append(time.perf_counter() - begun)
    return {
        "batch_1000_ms": round(statistics.median(served), 3),
        "batch_1000_raw_ms": round(statistics.median(raw) * 1000, 3),
    }


def medians(runs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The runs of each server as one: medians of its figures."""
    for name in dict.fromkeys(run["name"] for run in runs):
        mine = [run for run in runs if run["name"] == name]
        yield {
            key: value if isinstance(value, str) else statistics.median(run[key] for run in mine)
            for key, value in mine[0].items()
        }


def show(figures: list[dict[str, Any]], *, rounds: int, seconds: float) -> None:
    """Print them as a table."""
    table = Table(
        title=f"The flight-delay model, a row a request, {CLIENTS} connections: medians of {rounds} x {seconds:g} s"
    )
    columns = {
        "per_s": "req/s",
        "p50_ms": "p50 ms",
        "p99_ms": "p99 ms",
        "cpu_us": "CPU us a request",
        "lone_p50_ms": "lone p50 ms",
        "ready_s": "ready s",
        "memory_mb": "MB",
    }
    table.add_column("server")
    for title in columns.values():
        table.add_column(title, justify="right")
    for each in figures:
        table.add_row(each["name"], *(f"{each[key]:,g}" for key in columns))
    Console().print(table)
    for each in figures:
        if "batch_1000_ms" in each:
            Console().print(
                f"{BATCH_ROWS} rows in one request: {each['batch_1000_ms']} ms; "
                f"onnxruntime and JSON alone: {each['batch_1000_raw_ms']} ms"
            )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("servers", nargs="*", default=[], metavar="server", help=f"of {', '.join(SERVERS)} (all)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each is under load in each round (5)")
    parser.add_argument("--rounds", type=int, default=3, help="how often; medians are shown (3)")
    parser.add_argument("--json", action="store_true", help="print each run as a line of JSON instead of a table")
    options = parser.parse_args()
    unknown = set(options.servers) - set(SERVERS)
    if unknown:
        parser.error(f"no such server: {', '.join(sorted(unknown))}")
    names = options.servers or list(SERVERS)
    runs = []
    for number in range(1, options.rounds + 1):
        for name in names:
            console.print(f"round {number}: {name}")
            try:
                runs.append(uvloop.run(measure(SERVERS[name], seconds=options.seconds)))
            except PeerFailed as error:
                print(error, file=sys.stderr)
                return 1
            if options.json:
                print(json.dumps(runs[-1]), flush=True)
    if not options.json:
        show(list(medians(runs)), rounds=options.rounds, seconds=options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
