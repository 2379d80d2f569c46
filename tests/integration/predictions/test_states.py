"""Any order of submitting, settling, cancelling and expiring, against a simple model of wallets."""

import asyncio
import tempfile
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from tests.predictions import (
    assert_books_are_right,
    balance_of,
    failed,
    open_account,
    statuses_of,
    submission,
    succeeded,
)

from foretell.domain.credits import ledger
from foretell.domain.credits.ledger import Balance
from foretell.domain.errors import AlreadyFinished, IdempotencyKeyReused, NotEnoughCredits
from foretell.domain.migrations.run import migrate
from foretell.domain.predictions import sweeps
from foretell.domain.predictions.cancellation import cancel
from foretell.domain.predictions.intake import Receipt, accept
from foretell.domain.predictions.opening import open_store
from foretell.domain.predictions.settlement import settle
from foretell.kit.clock import now
from foretell.kit.database import Database

Returned = TypeVar("Returned")

_users = st.integers(0, 1)
_keys = st.none() | st.sampled_from(["a", "b"])
_hashes = st.sampled_from([b"one", b"two"])
_orders = st.tuples(_users, st.integers(0, 6), _keys, _hashes)


class Predictions(RuleBasedStateMachine):
    """The model is a dictionary of wallets and one of statuses; the database must agree after every step."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._loop = asyncio.new_event_loop()
        self._database = Database(f"sqlite:///{Path(self._folder.name) / 'foretell.db'}")
        self._store = open_store(self._database)
        self._await(migrate(self._database))
        self._users: list[UUID] = []
        self._wallets: list[Balance] = []
        self._statuses: dict[UUID, str] = {}
        self._asked: dict[UUID, tuple[int, int]] = {}
        self._keys: dict[tuple[int, str], tuple[UUID, bytes]] = {}

    def _await(self, work: Coroutine[Any, Any, Returned]) -> Returned:
        return self._loop.run_until_complete(work)

    @initialize(credits=st.tuples(st.integers(0, 20), st.integers(0, 20)))
    def open_accounts(self, credits: tuple[int, int]) -> None:
        self._users = [self._await(open_account(self._database, credits=each)) for each in credits]
        self._wallets = [Balance(each, 0) for each in credits]

    @rule(target=ids, orders=st.lists(_orders, min_size=1, max_size=5))
    def submit(self, orders: list[tuple[int, int, str | None, bytes]]) -> Any:
        asked = [
            submission(
                self._users[user],
                price_credits=price,
                idempotency_key=key,
                request_hash=None if key is None else request_hash,
            )
            for user, price, key, request_hash in orders
        ]
        outcomes = self._await(accept(self._store, asked))
        accepted = []
        for one, outcome, (user, price, key, request_hash) in zip(asked, outcomes, orders, strict=True):
            if isinstance(outcome, Receipt) and not outcome.replayed:
                assert outcome == Receipt(one.id, "queued")
                wallet = self._wallets[user]
                self._wallets[user] = Balance(wallet.available - price, wallet.held + price)
                self._statuses[one.id] = "queued"
                self._asked[one.id] = (user, price)
                accepted.append(one.id)
                if key is not None:
                    assert (user, key) not in self._keys
                    self._keys[user, key] = (one.id, request_hash)
        for outcome, (user, price, key, request_hash) in zip(outcomes, orders, strict=True):
            known = self._keys.get((user, key)) if key is not None else None
            if isinstance(outcome, Receipt) and outcome.replayed:
                assert known == (outcome.id, request_hash)
                assert outcome.status == self._statuses[outcome.id]
            elif isinstance(outcome, IdempotencyKeyReused):
                assert known is not None
                assert known[1] != request_hash
            elif isinstance(outcome, NotEnoughCredits):
                # What others in the batch got is spent by the time of the refusal.
                assert known is None
                assert price > self._wallets[user].available
        return multiple(*accepted)

    @rule(
        endings=st.lists(st.tuples(ids | st.builds(uuid4), st.booleans()), min_size=1, max_size=6),
    )
    def settle(self, endings: list[tuple[UUID, bool]]) -> None:
        finished = self._await(
            settle(self._store, [(succeeded if success else failed)(identifier) for identifier, success in endings])
        )
        expected = {}
        for identifier, success in endings:
            if self._statuses.get(identifier) == "queued" and identifier not in expected:
                expected[identifier] = "succeeded" if success else "failed"
        assert {one.id: one.status for one in finished} == expected
        assert len(finished) == len(expected)
        for identifier, status in expected.items():
            self._end(identifier, status)

    @rule(identifier=ids, user=_users)
    def cancel(self, identifier: UUID, user: int) -> None:
        owner, _ = self._asked[identifier]
        queued = self._statuses[identifier] == "queued"
        outcome = self._await(self._try_to_cancel(self._users[user], identifier))
        if user == owner and queued:
            assert outcome is None
            self._end(identifier, "canceled")
        elif user == owner:
            assert isinstance(outcome, AlreadyFinished)
        else:
            assert outcome is not None

    async def _try_to_cancel(self, user_id: UUID, identifier: UUID) -> Exception | None:
        try:
            async with self._database.transaction() as connection:
                await cancel(connection, user_id, identifier)
        except Exception as error:
            return error
        return None

    @rule(limit=st.integers(1, 4))
    def expire(self, limit: int) -> None:
        overdue = self._await(self._overdue(limit))
        queued = sorted(identifier for identifier, status in self._statuses.items() if status == "queued")
        assert list(overdue) == queued[:limit]
        self._await(settle(self._store, [failed(identifier, "expired") for identifier in overdue]))
        for identifier in overdue:
            self._end(identifier, "failed")

    async def _overdue(self, limit: int) -> Any:
        async with self._database.snapshot() as connection:
            return await sweeps.expired(connection, now() + timedelta(hours=2), limit=limit)

    @rule(user=_users, credits=st.integers(1, 10))
    def top_up(self, user: int, credits: int) -> None:
        self._await(self._pay_in(self._users[user], credits))
        wallet = self._wallets[user]
        self._wallets[user] = Balance(wallet.available + credits, wallet.held)

    async def _pay_in(self, user_id: UUID, credits: int) -> None:
        async with self._database.transaction() as connection:
            await ledger.top_up(connection, user_id, credits)

    def _end(self, identifier: UUID, status: str) -> None:
        self._statuses[identifier] = status
        user, price = self._asked[identifier]
        wallet = self._wallets[user]
        returned = 0 if status == "succeeded" else price
        self._wallets[user] = Balance(wallet.available + returned, wallet.held - price)

    @invariant()
    def the_database_agrees(self) -> None:
        for user, wallet in zip(self._users, self._wallets, strict=True):
            assert wallet.available >= 0
            assert self._await(balance_of(self._database, user)) == wallet
        statuses = self._await(statuses_of(self._database, list(self._statuses)))
        assert statuses == list(self._statuses.values())
        self._await(assert_books_are_right(self._database))

    def teardown(self) -> None:
        self._await(self._database.close())
        self._loop.close()
        self._folder.cleanup()


Predictions.TestCase.settings = settings(max_examples=12, stateful_step_count=15)
TestPredictions = Predictions.TestCase
