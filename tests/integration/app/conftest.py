"""The API in this process, on a database of the test's own, with two users."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import argon2
import httpx
import pytest

from foretell.domain.accounts import registration
from foretell.domain.accounts.passwords import Passwords
from foretell.domain.accounts.throttle import AccountThrottle, LoginThrottle, SignupThrottle
from foretell.domain.accounts.tokens import AccessTokens
from foretell.domain.operators import users
from foretell.domain.operators.journal import Actor
from foretell.domain.predictions.intake import Receipt, accept
from foretell.domain.predictions.opening import open_store
from foretell.domain.predictions.settlement import settle
from foretell.domain.predictions.store import Ending, Submission
from foretell.inference.live import LiveRegistry
from foretell.kit.clock import now, uuid7
from foretell.kit.database import Database
from foretell.services.app.api import build_api, surround
from foretell.services.app.authentication import Authenticator
from foretell.services.app.changes import Changes
from foretell.services.app.checked_urls import CheckedUrls
from foretell.services.app.following import Following
from foretell.services.app.monitoring import Monitoring
from foretell.services.app.packages import Packages
from foretell.services.app.queue_places import QueuePlaces
from foretell.services.app.settings import AppSettings, signing_secret
from foretell.services.app.state import AppState
from foretell.services.app.waiting import Waiting

PASSWORD = "a password that is long enough"


def _quick_passwords() -> Passwords:
    """Hashes that are not made to take their time: how those of the product are made is tested by itself."""
    passwords = Passwords()
    passwords._hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    return passwords


def make_state(settings: AppSettings, database: Database) -> AppState:
    """What the app puts together at its start."""
    access_tokens = AccessTokens(signing_secret(settings), lifetime_s=settings.access_token_lifetime_s)
    return AppState(
        settings=settings,
        database=database,
        registry=LiveRegistry.installed(settings.models_dir, settings.data_dir),
        passwords=_quick_passwords(),
        access_tokens=access_tokens,
        throttle=LoginThrottle(),
        signups=SignupThrottle(settings.signups_per_address),
        telegram_signups=SignupThrottle(settings.telegram_signups),
        webhook_sends=AccountThrottle(settings.webhook_sends_per_minute),
        exports=AccountThrottle(settings.exports_per_minute),
        authenticator=Authenticator(database, access_tokens),
        session_lifetime=settings.session_lifetime,
        waiting=Waiting(database),
        following=Following(database),
        changes=Changes(database),
        checked_urls=CheckedUrls(settings.addresses()),
        queue_places=QueuePlaces(database),
        monitoring=Monitoring(settings),
        packages=Packages(settings),
        stopping=asyncio.Event(),
    )


def client_of(state: AppState) -> httpx.AsyncClient:
    """Calls the API of `state` without a network."""
    transport = httpx.ASGITransport(surround(build_api(state), state.settings))
    return httpx.AsyncClient(transport=transport, base_url="http://foretell")


@dataclass(frozen=True)
class Account:
    """A user and the headers that prove it."""

    id: UUID
    headers: dict[str, str] = field(repr=False)


@pytest.fixture
def settings(tmp_path: Path) -> AppSettings:
    return AppSettings(data_dir=tmp_path / "data")


@pytest.fixture
async def state(settings: AppSettings, database: Database) -> AsyncIterator[AppState]:
    state = make_state(settings, database)
    yield state
    state.passwords.close()


@pytest.fixture
async def client(state: AppState) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(state) as client:
        yield client


async def _open_account(state: AppState, username: str) -> Account:
    async with state.database.transaction() as connection:
        user = await registration.register(
            connection, username=username, password_hash="nobody logs in with this", grant_credits=100
        )
    token, _ = state.access_tokens.issue(user)
    return Account(user.id, {"Authorization": f"Bearer {token}"})


@pytest.fixture
async def ada(state: AppState) -> Account:
    return await _open_account(state, "ada")


@pytest.fixture
async def bob(state: AppState) -> Account:
    return await _open_account(state, "bob")


@pytest.fixture
def submit(state: AppState) -> Callable[..., Awaitable[UUID]]:
    """Accepts a prediction, as the hot route does, and returns its id."""

    async def submit(account: Account, *, model: str = "flight-delay", price: int = 1, stage: str = "input") -> UUID:
        submission = Submission(
            id=uuid7(),
            user_id=account.id,
            model=model,
            version="1.0.0",
            pool=None,
            stage="features" if stage == "features" else "input",
            payload=b'{"carrier":"AA","distance_miles":1.50}',
            price_credits=price,
            created_at=now(),
            expires_at=now() + timedelta(hours=1),
        )
        (receipt,) = await accept(open_store(state.database), [submission])
        assert isinstance(receipt, Receipt)
        return receipt.id

    return submit


@pytest.fixture
def finish(state: AppState) -> Callable[..., Awaitable[None]]:
    """Ends a prediction, as the dispatcher does, and wakes who waits for it."""

    async def finish(prediction_id: UUID, output: bytes = b'{"prediction":1,"probability":0.75}') -> None:
        ending = Ending(prediction_id, output=output, worker_id="worker-1", started_at=now())
        finished = await settle(open_store(state.database), [ending])
        assert isinstance(state.waiting, Waiting)
        state.waiting.wake(finished)

    return finish


@pytest.fixture
def is_problem() -> Callable[[httpx.Response, int, str], None]:
    """Asserts that an answer is a whole problem, with this status and code."""

    def is_problem(response: httpx.Response, status: int, code: str) -> None:
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert (response.status_code, problem["code"]) == (status, code), problem
        assert problem["status"] == status
        assert problem["title"]
        assert problem["detail"]
        assert problem["type"] == f"urn:problem-type:foretell:{code}"
        assert problem["instance"].startswith("/")
        if status == 401:
            assert response.headers["www-authenticate"].startswith("Bearer ")
        if status in (429, 503):
            assert int(response.headers["retry-after"]) >= 1

    return is_problem


@pytest.fixture
async def olga(state: AppState) -> Account:
    """An operator."""
    async with state.database.transaction() as connection:
        user = await users.add(
            connection, Actor(None, "test"), username="olga", password_hash="x", credits=0, role="operator"
        )
    token, _ = state.access_tokens.issue(user)
    return Account(user.id, {"Authorization": f"Bearer {token}"})


@pytest.fixture
async def operator(client: httpx.AsyncClient, olga: Account, state: AppState) -> AsyncIterator[httpx.AsyncClient]:
    """The client, as olga."""
    client.headers.update(olga.headers)
    yield client
    await state.monitoring.close()
