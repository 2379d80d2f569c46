"""The sender: at least once, in order for each endpoint, with one id, and nobody waits for somebody else."""

import asyncio
import base64
import ipaddress
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from tests.predictions import accepted, open_account, submission, succeeded
from tests.webhook_receiver import ALLOWED, Received, Receiver, receiving

from foretell.domain.errors import NotFound, TooManyRotations
from foretell.domain.notifications import endpoints, events, outbox
from foretell.domain.notifications.events import BALANCE_LOW
from foretell.domain.notifications.rotation import ROTATION
from foretell.domain.notifications.spreading import spread
from foretell.domain.notifications.tables import deliveries
from foretell.domain.notifications.tables import endpoints as endpoints_table
from foretell.domain.notifications.tables import events as events_table
from foretell.domain.predictions.opening import open_store
from foretell.domain.predictions.settlement import settle
from foretell.kit.addresses import Addresses
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.kit.outgoing import Outgoing
from foretell.services.dispatcher.figures import Figures
from foretell.services.dispatcher.measures import (
    NOTIFICATIONS_OLDEST_AGE_S,
    NOTIFICATIONS_OVERDUE_S,
    NOTIFICATIONS_PENDING,
)
from foretell.services.dispatcher.notifying import retries
from foretell.services.dispatcher.notifying.delivering import Bot
from foretell.services.dispatcher.notifying.sender import Sender
from foretell.services.dispatcher.settings import DispatcherSettings

_LOOPBACK = (ipaddress.ip_network(ALLOWED),)
_LONG = timedelta(seconds=60)
BOT_SECRET = b"the secret of the installation 1"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def other() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@asynccontextmanager
async def sending(
    database: Database, *, timeout_s: float = 10.0, allowed: Sequence[Any] = _LOOPBACK, bot: Bot | None = None
) -> AsyncIterator[Sender]:
    """A sender that runs inside."""

    def outgoing(networks: Sequence[Any]) -> Outgoing:
        return Outgoing(Addresses(networks, needs_tls=False), timeout_s=timeout_s)

    sender = Sender(database, outgoing(allowed), outgoing(_LOOPBACK), bot, timeout_s=timeout_s)
    stopping = asyncio.Event()
    running = asyncio.create_task(sender.run(stopping))
    try:
        yield sender
    finally:
        stopping.set()
        await running


async def webhook(database: Database, user_id: UUID, url: str, **more: Any) -> tuple[UUID, str]:
    """A new webhook: its id and its secret."""
    async with database.transaction() as connection:
        endpoint, secret = await endpoints.create(
            connection, user_id, url, types=more.get("types"), description="of a test"
        )
    return endpoint.id, secret


async def finish(database: Database, user_id: UUID, count: int = 1, **fields: Any) -> list[UUID]:
    """Predictions that end, one after the other."""
    store = open_store(database)
    ids = await accepted(store, *(submission(user_id, **fields) for _ in range(count)))
    for identifier in ids:
        await settle(store, [succeeded(identifier)])
    return ids


async def attempts(database: Database, endpoint_id: UUID, count: int) -> list[Any]:
    """Every attempt, oldest first, once there are so many."""
    query = select(deliveries).where(deliveries.c.endpoint_id == endpoint_id).order_by(deliveries.c.id)
    async with asyncio.timeout(30):
        while True:
            async with database.snapshot() as connection:
                rows = (await connection.execute(query)).all()
            if len(rows) >= count:
                return list(rows)
            await asyncio.sleep(0.02)


async def passed(database: Database, endpoint_id: UUID, sequence: int) -> None:
    """Until the endpoint has got, or does not get, everything up to this event."""
    query = select(endpoints_table.c.cursor).where(endpoints_table.c.id == endpoint_id)
    async with asyncio.timeout(30):
        while True:
            async with database.snapshot() as connection:
                if await connection.scalar(query) == sequence:
                    return
            await asyncio.sleep(0.02)


async def endpoint_of(database: Database, user_id: UUID, endpoint_id: UUID) -> endpoints.Endpoint:
    async with database.snapshot() as connection:
        return await endpoints.find(connection, user_id, endpoint_id)


async def pretend_replaced(database: Database, *, ago: Sequence[timedelta]) -> None:
    """As if the secrets that were replaced had been so long ago, the newest first."""
    async with database.transaction() as connection:
        replaced = json.loads(await connection.scalar(select(endpoints_table.c.previous_secrets)) or "")
        moved = [(secret, str(now() - age + ROTATION)) for (secret, _), age in zip(replaced, ago, strict=True)]
        await connection.execute(update(endpoints_table).values(previous_secrets=json.dumps(moved)))


async def pretend(database: Database, endpoint_id: UUID, **values: Any) -> None:
    """Change what stands in the row of an endpoint."""
    mine = endpoints_table.c.id == endpoint_id
    async with database.transaction() as connection:
        await connection.execute(update(endpoints_table).where(mine).values(**values))


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again when a test says so: the first pause of 5 s may be over between two steps on a slow machine."""
    monkeypatch.setattr(retries, "_PAUSES_S", tuple(max(pause_s, 600.0) for pause_s in retries._PAUSES_S))


def statuses(*answers: int | str | bytes) -> Callable[[Received], int | str | bytes]:
    """One answer after the other; the last again and again."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


async def test_ends_arrive_in_order_signed_and_once(database: Database, ada: UUID, receiver: Receiver) -> None:
    _, secret = await webhook(database, ada, receiver.url)
    async with sending(database) as sender:
        ids = await finish(database, ada, 5)
        sender.wake()
        await receiver.wait_for(5)
        ids += await finish(database, ada, 70)
        received = await receiver.wait_for(75)
        await asyncio.sleep(0)
    assert [request.id for request in received] == [str(identifier) for identifier in ids]
    assert [request.json["sequence"] for request in received] == list(range(1, 76))
    for request in received:
        body = Webhook(secret).verify(request.body, request.headers)
        assert body["type"] == "prediction.finished"
        assert body["data"]["id"] == request.id
        assert body["data"]["status"] == "succeeded"
        assert body["data"]["input"] == {"carrier": "AA"}
    # Over a connection that is kept, or a few.
    assert receiver.connections < 10


async def test_another_secret_does_not_verify(database: Database, ada: UUID, receiver: Receiver) -> None:
    await webhook(database, ada, receiver.url)
    async with sending(database):
        await finish(database, ada)
        (request,) = await receiver.wait_for(1)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"x" * 32).decode()).verify(request.body, request.headers)


async def test_what_fails_is_tried_again_with_the_same_id_before_what_follows(
    database: Database, ada: UUID, receiver: Receiver
) -> None:
    endpoint_id, _ = await webhook(database, ada, receiver.url)
    # The first reset is on a connection that was kept, and may be the end of that: it is tried again at once.
    receiver.answer = statuses(500, 302, "reset", "reset", 204)
    async with sending(database) as sender:
        ids = await finish(database, ada, 2)
        for count in (1, 2, 3):
            await attempts(database, endpoint_id, count)
            endpoint = await endpoint_of(database, ada, endpoint_id)
            # Not at once, and not in an hour.
            assert endpoint.due_at is not None
            assert endpoint.failing_since is not None
            assert endpoint.waiting == 2
            await pretend(database, endpoint_id, due_at=now())
            sender.wake()
        rows = await attempts(database, endpoint_id, 5)
    assert [request.id for request in receiver.requests] == [str(ids[0])] * 5 + [str(ids[1])]
    assert [(row.attempt, row.outcome, row.status_code, row.error) for row in rows] == [
        (1, "failed", 500, None),
        (2, "failed", 302, None),
        (3, "failed", None, "reset"),
        (4, "delivered", 204, None),
        (1, "delivered", 204, None),
    ]
    endpoint = await endpoint_of(database, ada, endpoint_id)
    assert (endpoint.waiting, endpoint.due_at, endpoint.failing_since) == (0, None, None)


async def test_a_slow_receiver_delays_nobody_else(
    database: Database, ada: UUID, receiver: Receiver, other: Receiver
) -> None:
    bob = await open_account(database)
    receiver.answer = lambda _: "hang"
    slow, _ = await webhook(database, ada, receiver.url)
    fast = [(await webhook(database, user_id, other.url))[0] for user_id in (ada, bob)]
    async with sending(database, timeout_s=3.0):
        await finish(database, ada)
        await receiver.wait_for(1)
        await finish(database, ada, 3)
        await finish(database, bob, 3)
        await other.wait_for(7)
        (attempt,) = await attempts(database, slow, 1)
    assert (attempt.outcome, attempt.error) == ("failed", "timeout")
    assert len({request.id for request in other.requests}) == 7
    assert len(fast) == 2


async def test_an_account_has_a_bounded_share(database: Database, ada: UUID, receiver: Receiver) -> None:
    bob = await open_account(database)
    # Each an endpoint of its own, and slow.
    receiver.answer = lambda request: "hang" if request.path.startswith("/hook?") else 204
    store = open_store(database)
    ids = await accepted(store, *(submission(ada, webhook=f"{receiver.url}?{number}") for number in range(40)))
    await settle(store, [succeeded(identifier) for identifier in ids])
    await webhook(database, bob, receiver.url)
    async with sending(database, timeout_s=3.0):
        await receiver.wait_for(16)
        await finish(database, bob, 3)
        async with asyncio.timeout(30):
            while sum(request.path == "/hook" for request in receiver.requests) < 3:
                await asyncio.sleep(0.02)
        hanging = [request for request in receiver.requests if request.path != "/hook"]
    assert len(hanging) >= 16


async def test_gone_turns_off_and_is_told_by_other_ways(
    database: Database, ada: UUID, receiver: Receiver, other: Receiver
) -> None:
    gone, _ = await webhook(database, ada, receiver.url)
    await webhook(database, ada, other.url)
    receiver.answer = lambda _: 410
    async with sending(database):
        await finish(database, ada)
        await other.wait_for(2)
        endpoint = await endpoint_of(database, ada, gone)
        assert (endpoint.state, endpoint.disabled_reason, endpoint.due_at) == ("disabled", "gone", None)
        await finish(database, ada)
        received = await other.wait_for(3)
        assert [request.json["type"] for request in received][1] == "endpoint.disabled"
        assert received[1].json["data"] == {"webhook_id": str(gone), "url": receiver.url, "reason": "gone"}
        assert len(receiver.requests) == 1
        # Turned on again, it is told what it has not had.
        receiver.answer = lambda _: 204
        async with database.transaction() as connection:
            await endpoints.change(connection, ada, gone, state="enabled")
        await receiver.wait_for(4)
    assert [request.json["sequence"] for request in receiver.requests] == [1, 1, 2, 3]


async def test_five_days_of_failure_turn_off(database: Database, ada: UUID, receiver: Receiver) -> None:
    endpoint_id, _ = await webhook(database, ada, receiver.url)
    receiver.answer = lambda _: 503
    async with sending(database) as sender:
        await finish(database, ada)
        await attempts(database, endpoint_id, 1)
        for days, state in ((4, "enabled"), (5, "disabled")):
            since = now() - timedelta(days=days)
            await pretend(database, endpoint_id, due_at=now(), failing_since=since, head_since=now())
            sender.wake()
            await attempts(database, endpoint_id, days - 2)
            assert (await endpoint_of(database, ada, endpoint_id)).state == state
    async with database.snapshot() as connection:
        told = await events.page(connection, ada, after=0, limit=10)
    assert [event.type for event in told] == ["prediction.finished", "endpoint.disabled"]


async def test_what_fails_for_a_day_is_given_up_and_the_next_one_has_its_turn(
    database: Database, ada: UUID, receiver: Receiver
) -> None:
    endpoint_id, _ = await webhook(database, ada, receiver.url)
    poison: list[str] = []
    receiver.answer = lambda request: 400 if request.id in poison else 204
    async with sending(database) as sender:
        store = open_store(database)
        ids = await accepted(store, *(submission(ada) for _ in range(3)))
        poison.append(str(min(ids)))
        await settle(store, [succeeded(identifier) for identifier in ids])
        await attempts(database, endpoint_id, 1)
        await pretend(database, endpoint_id, due_at=now(), head_since=now() - timedelta(days=1))
        sender.wake()
        rows = await attempts(database, endpoint_id, 4)
    assert [row.outcome for row in rows] == ["failed", "given_up", "delivered", "delivered"]
    assert [row.event_id for row in rows] == [min(ids), *sorted(ids)]


async def test_a_day_away_delays_and_loses_nothing(database: Database, ada: UUID, receiver: Receiver) -> None:
    endpoint_id, _ = await webhook(database, ada, receiver.url)
    receiver.answer = lambda _: 503
    async with sending(database) as sender:
        ids = await finish(database, ada, 10)
        await attempts(database, endpoint_id, 1)
        receiver.answer = lambda _: 204
        await pretend(database, endpoint_id, due_at=now(), head_since=now() - timedelta(hours=23), failures=30)
        sender.wake()
        received = await receiver.wait_for(11)
    assert [request.id for request in received[1:]] == [str(identifier) for identifier in ids]


async def test_every_secret_signs_for_a_day(database: Database, ada: UUID, receiver: Receiver) -> None:
    endpoint_id, first = await webhook(database, ada, receiver.url)
    shown = [first]
    async with sending(database):
        for _ in range(2):
            async with database.transaction() as connection:
                shown.append(await endpoints.rotate(connection, ada, endpoint_id))
        await finish(database, ada)
        (signed_thrice,) = await receiver.wait_for(1)
        await pretend_replaced(database, ago=(timedelta(hours=1), timedelta(hours=24)))
        await finish(database, ada)
        _, signed_twice = await receiver.wait_for(2)
    assert len(set(shown)) == 3
    for secret in shown:
        assert Webhook(secret).verify(signed_thrice.body, signed_thrice.headers)
    for secret in shown[1:]:
        assert Webhook(secret).verify(signed_twice.body, signed_twice.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(first).verify(signed_twice.body, signed_twice.headers)
    # Its time is over, so that there is room for one more.
    async with database.transaction() as connection:
        for _ in range(4):
            await endpoints.rotate(connection, ada, endpoint_id)
        with pytest.raises(TooManyRotations):
            await endpoints.rotate(connection, ada, endpoint_id)


async def test_every_secret_of_single_predictions_signs_for_a_day(
    database: Database, ada: UUID, receiver: Receiver
) -> None:
    async with database.transaction() as connection:
        shown = [await endpoints.rotate_once(connection, ada) for _ in range(3)]
    async with sending(database):
        await finish(database, ada, webhook=receiver.url)
        (signed,) = await receiver.wait_for(1)
    for secret in shown:
        assert Webhook(secret).verify(signed.body, signed.headers)


async def test_attempts_at_the_address_of_single_predictions_are_shown(
    database: Database, ada: UUID, receiver: Receiver, other: Receiver
) -> None:
    bob = await open_account(database)
    async with sending(database):
        ids = await finish(database, ada, 3, webhook=receiver.url)
        await finish(database, ada, webhook=other.url)
        await finish(database, bob, webhook=receiver.url)
        await receiver.wait_for(4)
        await other.wait_for(1)
    # What was sent is written down by the time the sender has stopped.
    async with database.snapshot() as connection:
        shown = await endpoints.list_once_deliveries(connection, ada, receiver.url, limit=10)
        assert [(each.event_id, each.outcome, each.status_code) for each in shown] == [
            (identifier, "delivered", 204) for identifier in reversed(ids)
        ]
        first = await endpoints.list_once_deliveries(connection, ada, receiver.url, limit=2)
        rest = await endpoints.list_once_deliveries(connection, ada, receiver.url, limit=2, before_id=first[-1].id)
        assert [*first, *rest] == shown
        for user_id, url in ((bob, other.url), (ada, receiver.url + "/")):
            with pytest.raises(NotFound):
                await endpoints.list_once_deliveries(connection, user_id, url, limit=10)


async def test_an_endpoint_hears_what_it_asked_for(
    database: Database, ada: UUID, receiver: Receiver, other: Receiver
) -> None:
    await webhook(database, ada, receiver.url, types=["balance.low"])
    await webhook(database, ada, other.url)
    async with database.transaction() as connection:
        await events.set_threshold(connection, ada, 10_000)
    async with sending(database):
        await finish(database, ada, 2)
        await receiver.wait_for(1)
        await other.wait_for(3)
    assert [request.json["type"] for request in receiver.requests] == ["balance.low"]
    assert receiver.requests[0].json["data"] == {"available": 9_998, "held": 0, "threshold": 10_000} or (
        receiver.requests[0].json["data"] == {"available": 9_998, "held": 1, "threshold": 10_000}
    )
    assert [request.json["type"] for request in other.requests].count("prediction.finished") == 2


async def test_a_test_goes_to_one_alone_even_if_it_is_paused(
    database: Database, ada: UUID, receiver: Receiver, other: Receiver
) -> None:
    paused, secret = await webhook(database, ada, receiver.url)
    await webhook(database, ada, other.url)
    async with database.transaction() as connection:
        await endpoints.change(connection, ada, paused, state="paused")
    async with sending(database):
        await finish(database, ada)
        await other.wait_for(1)
        async with database.transaction() as connection:
            sequence = await endpoints.send_test(connection, ada, paused)
        (request,) = await receiver.wait_for(1)
        assert Webhook(secret).verify(request.body, request.headers)["type"] == "webhook.test"
        (row,) = await attempts(database, paused, 1)
        assert (row.sequence, row.outcome) == (sequence, "delivered")
        await finish(database, ada)
        await other.wait_for(2)
        assert len(receiver.requests) == 1
        async with database.transaction() as connection:
            await endpoints.change(connection, ada, paused, state="enabled")
        received = await receiver.wait_for(3)
    # What happened while it was paused; the test itself is not sent a second time.
    assert [each.json["type"] for each in received[1:]] == ["prediction.finished"] * 2
    assert [each.json["sequence"] for each in received[1:]] == [1, 3]


async def test_one_event_or_all_since_a_moment_can_be_had_again(
    database: Database, ada: UUID, receiver: Receiver
) -> None:
    endpoint_id, _ = await webhook(database, ada, receiver.url)
    async with sending(database):
        ids = [str(identifier) for identifier in await finish(database, ada, 4)]
        await receiver.wait_for(4)
        await attempts(database, endpoint_id, 4)
        async with database.transaction() as connection:
            await endpoints.redeliver_one(connection, ada, endpoint_id, 2)
        await receiver.wait_for(5)
        await attempts(database, endpoint_id, 5)
        async with database.snapshot() as connection:
            third = (await events.page(connection, ada, after=2, limit=1))[0]
        async with database.transaction() as connection:
            assert await endpoints.redeliver_since(connection, ada, endpoint_id, third.created_at) == 2
        received = await receiver.wait_for(7)
        await attempts(database, endpoint_id, 7)
    assert [request.id for request in received] == [*ids, ids[1], ids[2], ids[3]]


async def test_only_what_is_sent_again_counts(database: Database, ada: UUID, receiver: Receiver) -> None:
    """Neither tests nor events of types that the webhook does not get, whether they wait or are sent again."""
    endpoint_id, _ = await webhook(database, ada, receiver.url)
    everything, _ = await webhook(database, ada, receiver.url)
    async with database.transaction() as connection:
        await endpoints.change(connection, ada, endpoint_id, types=["prediction.finished", "endpoint.disabled"])
        await endpoints.change(connection, ada, everything, state="paused")
    before = now() - timedelta(hours=1)
    async with sending(database):
        for _ in range(2):
            await finish(database, ada)
            async with database.transaction() as connection:
                await endpoints.send_test(connection, ada, endpoint_id)
        async with database.transaction() as connection:
            await events.tell(connection, ada, BALANCE_LOW, data="{}")
        await receiver.wait_for(4)
        await attempts(database, endpoint_id, 4)
        await passed(database, endpoint_id, 5)
        async with database.transaction() as connection:
            assert await endpoints.redeliver_since(connection, ada, endpoint_id, before) == 2
            # Nothing was sent to it, and nothing is: it is paused.
            assert await endpoints.redeliver_since(connection, ada, everything, before) == 3
        received = await receiver.wait_for(6)
        await attempts(database, endpoint_id, 6)
    assert [request.json["type"] for request in received[4:]] == ["prediction.finished"] * 2
    assert (await endpoint_of(database, ada, everything)).waiting == 3


async def test_two_dispatchers_keep_order_and_send_nothing_twice(
    database: Database, empty_database_url: str, ada: UUID, receiver: Receiver, other: Receiver
) -> None:
    bob = await open_account(database)
    for user_id, url in ((ada, receiver.url), (bob, other.url)):
        await webhook(database, user_id, url)
    second = Database(empty_database_url)
    try:
        async with sending(database), sending(second):
            mine, others = await asyncio.gather(finish(database, ada, 60), finish(second, bob, 60))
            for each, ids in ((receiver, mine), (other, others)):
                received = await each.wait_for(60)
                assert [request.id for request in received] == [str(identifier) for identifier in ids]
    finally:
        await second.close()
    assert (len(receiver.requests), len(other.requests)) == (60, 60)


async def test_what_a_dead_dispatcher_had_is_sent_by_another(database: Database, ada: UUID, receiver: Receiver) -> None:
    endpoint_id, _ = await webhook(database, ada, receiver.url)
    ids = await finish(database, ada, 3)
    async with database.transaction() as connection:
        await spread(connection)
        dead = UUID(int=1)
        assert len(await outbox.take(connection, dead, lease=_LONG, limit=5, busy=[], kinds=["webhook"])) == 1
    async with sending(database) as sender:
        # Still his.
        assert await _taken_by(database, endpoint_id) == dead
        await pretend(database, endpoint_id, due_at=now())
        sender.wake()
        received = await receiver.wait_for(3)
        await attempts(database, endpoint_id, 3)
        assert await _taken_by(database, endpoint_id) is None
    assert [request.id for request in received] == [str(identifier) for identifier in ids]


@pytest.mark.parametrize("then", ["nothing", "paused", "redelivered", "failed", "done"])
async def test_an_endpoint_is_kept_only_while_there_is_more_and_nobody_changed_it(
    database: Database, ada: UUID, receiver: Receiver, then: str
) -> None:
    me = UUID(int=1)
    endpoint_id, _ = await webhook(database, ada, receiver.url)
    await finish(database, ada, 3)
    async with database.transaction() as connection:
        await spread(connection)
        (taken,) = await outbox.take(connection, me, lease=_LONG, limit=5, busy=[], kinds=["webhook"])
    if then == "paused":
        async with database.transaction() as connection:
            await endpoints.change(connection, ada, endpoint_id, state="paused")
    elif then == "redelivered":
        # There must be something that it has had already.
        await pretend(database, endpoint_id, cursor=1)
        async with database.transaction() as connection:
            await endpoints.redeliver_since(connection, ada, endpoint_id, now() - timedelta(hours=1))
    got = 3 if then == "done" else 1
    sent = outbox.Sent(taken, got, 0, 0, None, None, 5.0 if then == "failed" else None, [])
    async with database.transaction() as connection:
        kept = await outbox.record(connection, me, [sent], keep=[endpoint_id], lease=_LONG)
    assert [(each.id, each.cursor, each.last_event) for each in kept] == (
        [(endpoint_id, 1, 3)] if then == "nothing" else []
    )
    assert await _taken_by(database, endpoint_id) == (me if then == "nothing" else None)
    async with database.transaction() as connection:
        another = await outbox.take(connection, UUID(int=2), lease=_LONG, limit=5, busy=[], kinds=["webhook"])
    # What was sent for again is due at once, from where it was asked for.
    assert [each.cursor for each in another] == ([0] if then == "redelivered" else [])


async def _taken_by(database: Database, endpoint_id: UUID) -> UUID | None:
    async with database.snapshot() as connection:
        query = select(endpoints_table.c.leased_by).where(endpoints_table.c.id == endpoint_id)
        holder: UUID | None = await connection.scalar(query)
        return holder


async def test_the_webhook_of_a_single_prediction(database: Database, ada: UUID, receiver: Receiver) -> None:
    async with database.transaction() as connection:
        secret = await endpoints.rotate_once(connection, ada)
    async with sending(database):
        await finish(database, ada)
        ids = await finish(database, ada, 3, webhook=receiver.url)
        received = await receiver.wait_for(3)
        # A second secret signs along with the first.
        async with database.transaction() as connection:
            newer = await endpoints.rotate_once(connection, ada)
        ids += await finish(database, ada, webhook=receiver.url)
        received = await receiver.wait_for(4)
    assert [request.id for request in received] == [str(identifier) for identifier in ids]
    assert [request.json["sequence"] for request in received] == [1, 2, 3, 4]
    for request in received:
        assert Webhook(secret).verify(request.body, request.headers)
    assert Webhook(newer).verify(received[-1].body, received[-1].headers)


async def test_a_single_webhook_does_not_wait_for_the_wrong_predictions(
    database: Database, ada: UUID, receiver: Receiver, other: Receiver
) -> None:
    await webhook(database, ada, other.url)
    async with sending(database):
        first = await finish(database, ada, webhook=receiver.url)
        await receiver.wait_for(1)
        await finish(database, ada, 30)
        second = await finish(database, ada, webhook=receiver.url)
        received = await receiver.wait_for(2)
        await other.wait_for(32)
    assert [request.id for request in received] == [str(each) for each in (*first, *second)]


async def test_an_address_that_may_not_be_used_any_more_is_not_connected(
    database: Database, ada: UUID, receiver: Receiver
) -> None:
    # It was allowed when it was set.
    endpoint_id, _ = await webhook(database, ada, receiver.url)
    async with sending(database, allowed=()):
        await finish(database, ada)
        (row,) = await attempts(database, endpoint_id, 1)
    assert (row.outcome, row.error, row.status_code) == ("failed", "address", None)
    assert receiver.connections == 0


async def test_chats_are_told_by_the_bot(database: Database, ada: UUID, receiver: Receiver) -> None:
    async with database.transaction() as connection:
        chat = await endpoints.add_telegram(connection, ada, 42, now())
        assert await endpoints.add_telegram(connection, ada, 42, now()) == chat
    bot = Bot(receiver.url.removesuffix("/hook"), BOT_SECRET)
    receiver.answer = statuses(503, 204)
    async with sending(database, allowed=(), bot=bot) as sender:
        (identifier,) = await finish(database, ada)
        await attempts(database, chat, 1)
        # It is tried again for as long as there is something to tell.
        await pretend(database, chat, due_at=now(), head_since=now() - timedelta(days=6), failing_since=now())
        sender.wake()
        _, received = await receiver.wait_for(2)
        async with database.transaction() as connection:
            await endpoints.remove_telegram(connection, ada, None)
        await finish(database, ada)
    assert received.path == "/notifications"
    assert received.id == str(identifier)
    assert received.json["telegram"] == {"chat_id": 42, "user_id": str(ada)}
    secret = "whsec_" + base64.b64encode(BOT_SECRET).decode()
    assert Webhook(secret).verify(received.body, received.headers)["data"]["id"] == str(identifier)
    assert len(receiver.requests) == 2


async def test_without_a_bot_chats_wait(database: Database, ada: UUID, receiver: Receiver) -> None:
    async with database.transaction() as connection:
        chat = await endpoints.add_telegram(connection, ada, 42, now())
    await webhook(database, ada, receiver.url)
    async with sending(database):
        await finish(database, ada)
        await receiver.wait_for(1)
    async with database.snapshot() as connection:
        query = select(endpoints_table.c.cursor, endpoints_table.c.last_event).where(endpoints_table.c.id == chat)
        assert tuple((await connection.execute(query)).one()) == (0, 1)


async def test_what_waits_and_since_when_is_measured(database: Database, ada: UUID, receiver: Receiver) -> None:
    endpoint_id, _ = await webhook(database, ada, receiver.url)
    async with database.transaction() as connection:
        await endpoints.add_telegram(connection, ada, 42, now())
    figures = Figures(database, DispatcherSettings())
    await figures.count_notifications()
    gauges = (NOTIFICATIONS_PENDING, NOTIFICATIONS_OLDEST_AGE_S, NOTIFICATIONS_OVERDUE_S)
    assert [gauge._value.get() for gauge in gauges] == [0, 0, 0]
    await finish(database, ada, 3)
    async with database.transaction() as connection:
        await spread(connection)
        long_ago = now() - timedelta(hours=1)
        await connection.execute(update(events_table).values(created_at=long_ago))
    await pretend(database, endpoint_id, due_at=now() - timedelta(minutes=5))
    await figures.count_notifications()
    pending, age_s, overdue_s = (gauge._value.get() for gauge in gauges)
    # What waits for a bot that there is none of is no trouble.
    assert pending == 3
    assert 3600 <= age_s < 4000
    assert 300 <= overdue_s < 700
    # What failed, and waits for its next attempt, is not overdue.
    await pretend(database, endpoint_id, due_at=now() + timedelta(minutes=5))
    await figures.count_notifications()
    assert NOTIFICATIONS_OVERDUE_S._value.get() == 0


async def test_attempts_and_done_addresses_are_forgotten(database: Database, ada: UUID, receiver: Receiver) -> None:
    endpoint_id, _ = await webhook(database, ada, receiver.url)
    async with sending(database):
        await finish(database, ada, 3, webhook=receiver.url + "/once")
        await receiver.wait_for(6)
        await attempts(database, endpoint_id, 3)
        async with asyncio.timeout(30):
            while await _rows(database, deliveries) < 6:
                await asyncio.sleep(0.02)
    old = now() - timedelta(days=8)
    async with database.transaction() as connection:
        first = select(deliveries.c.id).order_by(deliveries.c.id).limit(4)
        await connection.execute(update(deliveries).where(deliveries.c.id.in_(first)).values(at=old))
        await connection.execute(update(endpoints_table).values(created_at=old))
    deleted = []
    while not deleted or deleted[-1]:
        async with database.transaction() as connection:
            deleted.append(await outbox.delete_old(connection, before=now() - events.KEPT, limit=3))
    assert deleted == [3, 1, 0]
    assert await _rows(database, deliveries) == 2
    # The account's own webhook stays, whenever it was made.
    assert await _rows(database, endpoints_table) == 1


async def _rows(database: Database, table: Any) -> int:
    async with database.snapshot() as connection:
        return len((await connection.execute(select(table))).all())
