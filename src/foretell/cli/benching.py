"""`foretell bench`: how fast the installation that runs here is, from the request to the settled prediction."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx

from foretell.cli.operating import database_pooler
from foretell.cli.output import count, remark, say, show, table
from foretell.domain.accounts import registration
from foretell.domain.accounts.identity import User
from foretell.domain.accounts.passwords import Passwords
from foretell.domain.credits import ledger
from foretell.domain.predictions import history
from foretell.kit.database import Database
from foretell.kit.errors import ForetellError
from foretell.local.engine import LocalEngine
from foretell.local.health import reachable_host
from foretell.local.installation import Installation
from foretell.local.measuring import Latency, Measured, Throughput

#: Enough for an hour at more than the fastest rate ever measured.
_CREDITS = 100_000_000
_TRIES = 100
_RETRY_S = 0.1
_ORDER = {
    "model": "flight-delay",
    "input": {"carrier": "AA", "departure_time": "17:45", "distance_miles": 1389, "weather_code": 3},
}


class LogInRefused(ForetellError):
    """The app did not let the account of the measurement log in: {reason}."""

    code = "log_in_refused"


def bench(*, clients: int, seconds: float) -> None:
    """Measure and print. Raises `NotRunning`, `LogInRefused`, `Unavailable`."""
    asyncio.run(_bench(clients=clients, seconds=seconds))


async def _bench(*, clients: int, seconds: float) -> None:
    engine = LocalEngine(Installation.from_environment())
    record = engine.running_record()
    processes = {status.name: status.pid for status in engine.status() if status.pid}
    app = next(program for program in record.programs if program.service == "app")
    url = f"http://{reachable_host(app.host)}:{app.port}"
    database = Database(record.database_url, application="foretell-bench", pooler=database_pooler())
    try:
        async with _measuring_account(url, database) as (user, token):

            async def count_queued() -> int:
                async with database.snapshot() as connection:
                    return await history.count_queued(connection, user.id)

            measured = Measured(url, token, _ORDER, count_queued, processes)
            remark("Warming up …")
            await measured.warm_up()
            remark(f"One client that waits for each result, {seconds / 2:g} s …")
            lone = await measured.latency(clients=1, seconds=seconds / 2)
            remark(f"{clients} clients that do not wait, {seconds:g} s …")
            throughput = await measured.throughput(clients=clients, seconds=seconds)
            _print(lone, throughput, sorted(processes.keys() - throughput.processes.keys()))
    finally:
        await database.close()


@asynccontextmanager
async def _measuring_account(url: str, database: Database) -> AsyncIterator[tuple[User, str]]:
    """The measuring account with credits and an access token. It is closed afterwards; prints what remains."""
    password = secrets.token_urlsafe(16)
    passwords = Passwords()
    try:
        password_hash = await passwords.hash(password)
    finally:
        passwords.close()
    async with database.transaction() as connection:
        user = await registration.open_measuring_account(connection, password_hash=password_hash)
        await ledger.grant(connection, user.id, _CREDITS, note="foretell bench")
    before = await _count(database, user)
    try:
        yield user, await _log_in(url, user.username, password)
    finally:
        async with database.transaction() as connection:
            left = (await ledger.balance(connection, user.id, lock=True)).available
            if left:
                await ledger.adjust(connection, user.id, -left, note="foretell bench: not spent")
            await registration.deactivate(connection, user.id)
        made = await _count(database, user) - before
        say(
            f"What stays: {count(made, 'prediction')} of the account {user.username}, which is closed. "
            "They are no revenue, and are left out of comparisons of versions. "
            "The drift report counts their inputs for a day, which may raise the alert `drift`."
        )


async def _log_in(url: str, username: str, password: str) -> str:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        answer = await client.post("/token", data={"username": username, "password": password})
        if answer.status_code != 200:
            raise LogInRefused(reason=answer.json().get("detail", answer.status_code))
        token = str(answer.json()["access_token"])
        # Each process of the app notices within about a second that the account was opened again.
        for _ in range(_TRIES):
            answer = await client.get("/balance", headers={"Authorization": f"Bearer {token}"})
            if answer.status_code == 200:
                return token
            await asyncio.sleep(_RETRY_S)
        raise LogInRefused(reason=answer.json().get("detail", answer.status_code))


async def _count(database: Database, user: User) -> int:
    async with database.snapshot() as connection:
        return await history.count_all(connection, user.id)


def _print(lone: Latency, throughput: Throughput, ended: Sequence[str]) -> None:
    made = table(["what", "a second", "p50 ms", "p95 ms", "p99 ms"], right=["a second", "p50 ms", "p95 ms", "p99 ms"])
    made.add_row(
        "1 client, from the request to its result",
        f"{lone.per_s:,.0f}",
        f"{lone.p50_ms:.1f}",
        f"{lone.p95_ms:.1f}",
        f"{lone.p99_ms:.1f}",
    )
    made.add_row(
        f"{throughput.clients} clients, from the request to its 202",
        f"{throughput.accepted_per_s:,.0f}",
        f"{throughput.p50_ms:.1f}",
        f"{throughput.p95_ms:.1f}",
        f"{throughput.p99_ms:.1f}",
    )
    show(made)
    say(
        f"Settled meanwhile: {throughput.settled_per_s:,.0f} a second; left over: {throughput.left_over} "
        f"({throughput.drained_after_s:g} s until everything had ended)."
    )
    if throughput.refused:
        say(f"Answers other than 202: {throughput.refused}")
    use = table(["process", "CPU us per prediction", "MiB"], right=["CPU us per prediction", "MiB"])
    for name, used in throughput.processes.items():
        use.add_row(name, f"{used.cpu_us_per_prediction:.0f}", f"{used.memory_mib:.0f}")
    show(use)
    if ended:
        say(f"Ended meanwhile, and so not in the table: {', '.join(ended)}.")
