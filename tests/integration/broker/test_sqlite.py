"""What can happen to a file: it is locked, full, deleted, somebody else's, or its holder is stopped."""

import asyncio
import os
import resource
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.integration.broker.conftest import PATIENCE_S, Place, nothing_comes, take, until

from foretell.broker import sqlite as sqlite_broker
from foretell.broker import sqlite_file
from foretell.broker.connect import connect
from foretell.broker.port import BrokerUnavailable
from foretell.broker.sqlite_file import LONG_LOG_BYTES, MAX_LOG_BYTES
from foretell.contracts.queues import TASKS, dead_queue
from foretell.kit.errors import Misconfigured


def file_of(place: Place) -> Path:
    return Path(place.url.removeprefix("sqlite:///"))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program that holds the write lock."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


@contextmanager
def full_disk(limit_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond `limit_bytes`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_locked_file_is_unavailable_within_the_deadline_and_then_used_again(sqlite_place: Place) -> None:
    broker = await sqlite_place.open()
    consumer = await broker.consume(TASKS, prefetch=10)
    for name in ("done", "again", "dead"):
        await broker.publish(TASKS, b"", message_id=name)
    done, again, dead = await take(consumer, 3)
    broker.subscribe("key")
    await until(lambda: broker.connected)
    with locked(file_of(sqlite_place)):
        for attempt in (
            broker.publish(TASKS, b"", message_id="two", timeout_s=0.2),
            broker.publish_event("key", b"", timeout_s=0.2),
        ):
            with pytest.raises(BrokerUnavailable, match="locked"):
                await attempt
        # What is settled now cannot be written now: that must neither fail nor be forgotten.
        settling = [
            asyncio.create_task(consumer.acknowledge([done])),
            asyncio.create_task(consumer.reject([again], requeue=True)),
            asyncio.create_task(consumer.reject([dead], requeue=False)),
        ]
        for task in settling:
            await asyncio.sleep(0.05)
            task.cancel()
        await asyncio.wait(settling)
    [delivery] = await take(consumer, 1)
    assert (delivery.message_id, delivery.attempts) == ("again", 2)
    [buried] = await take(await broker.consume(dead_queue(TASKS), prefetch=1), 1)
    assert buried.message_id == "dead"
    assert await nothing_comes(consumer)


async def test_a_receiver_waits_through_a_lock(sqlite_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_broker, "TIMEOUT_S", 0.5)
    broker = await sqlite_place.open()
    consumer = await broker.consume(TASKS, prefetch=1)
    await broker.publish(TASKS, b"", message_id="one")
    with locked(file_of(sqlite_place)):
        waiting = asyncio.create_task(take(consumer, 1))
        # Longer than the adapter tries in one go.
        await asyncio.sleep(1.5)
        assert not waiting.done()
    [delivery] = await waiting
    assert delivery.attempts == 1


async def test_a_full_disk_is_a_clear_error_and_no_half_message(sqlite_place: Place) -> None:
    broker = await sqlite_place.open()
    consumer = await broker.consume(TASKS, prefetch=10)
    with full_disk(1_000_000), pytest.raises(BrokerUnavailable, match="publish to ml_tasks"):
        await broker.publish(TASKS, os.urandom(2_000_000), message_id="too much")
    await broker.publish(TASKS, b"small", message_id="one")
    [delivery] = await take(consumer, 1)
    assert delivery.message_id == "one"
    await consumer.acknowledge([delivery])
    assert await nothing_comes(consumer)
    assert broker.connected


@pytest.mark.parametrize("with_its_folder", [False, True])
async def test_a_deleted_file_is_made_again_by_all(sqlite_place: Place, with_its_folder: bool) -> None:
    broker, other = await sqlite_place.open(), await sqlite_place.open()
    consumer = await broker.consume(TASKS, prefetch=10)
    await other.ensure_queue(TASKS)
    subscription = broker.subscribe("key")
    await until(lambda: broker.connected)
    await other.publish(TASKS, b"", message_id="before")
    before = await take(consumer, 1)
    path = file_of(sqlite_place)
    if with_its_folder:
        shutil.rmtree(path.parent)
    else:
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)
    await other.publish(TASKS, b"", message_id="after")
    [delivery] = await take(consumer, 1)
    assert delivery.message_id == "after"
    await consumer.acknowledge(before)
    await consumer.acknowledge([delivery])
    assert await nothing_comes(consumer)
    async with asyncio.timeout(PATIENCE_S):
        # Hints may be lost while the two find each other again.
        heard = asyncio.create_task(anext(subscription))
        while not heard.done():
            await other.publish_event("key", b"event")
            await asyncio.sleep(0.05)
        assert heard.result() == b"event"


async def test_messages_of_a_stopped_receiver_come_again_after_its_lease(sqlite_place: Place) -> None:
    broker = await sqlite_place.open()
    await broker.ensure_queue(TASKS)
    await broker.publish(TASKS, b"", message_id="one")
    peer = await sqlite_place.spawn("work", TASKS)
    assert (await peer.says())["id"] == "one"
    peer.process.send_signal(signal.SIGSTOP)
    held = "UPDATE message SET receiver = (SELECT max(receiver) FROM listener), attempts = attempts + 1"
    await broker.publish(TASKS, b"", message_id="two")
    connection = sqlite3.connect(file_of(sqlite_place), timeout=PATIENCE_S)
    # As if it had been stopped just after taking the second message, and half a minute had gone by.
    connection.execute(held)
    connection.execute("UPDATE receiver SET seen_at = seen_at - 31 WHERE name = (SELECT max(receiver) FROM listener)")
    connection.commit()
    connection.close()
    consumer = await broker.consume(TASKS, prefetch=1)
    [delivery] = await take(consumer, 1)
    assert (delivery.message_id, delivery.attempts) == ("two", 2)
    await consumer.acknowledge([delivery])
    await consumer.close()
    # Awake again, it finds its lease expired and enters anew.
    peer.process.send_signal(signal.SIGCONT)
    await broker.publish(TASKS, b"", message_id="three")
    assert (await peer.says())["id"] == "three"


async def test_who_was_taken_for_stopped_can_tell(sqlite_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_broker, "RENEW_S", 0.1)
    broker = await sqlite_place.open()
    consumer = await broker.consume(TASKS, prefetch=1)
    fed_since = consumer.since
    assert fed_since is not None
    await broker.publish(TASKS, b"", message_id="one")
    await take(consumer, 1)
    await asyncio.sleep(1.0)
    assert consumer.since == fed_since
    connection = sqlite3.connect(file_of(sqlite_place), timeout=PATIENCE_S)
    # As another does that has not seen its lease renewed for half a minute.
    connection.execute("DELETE FROM receiver")
    connection.execute("UPDATE message SET receiver = NULL")
    connection.commit()
    connection.close()
    [again] = await take(consumer, 1)
    assert (again.message_id, again.attempts) == ("one", 2)
    assert consumer.since is not None
    assert consumer.since > fed_since


async def test_a_publisher_killed_before_it_could_ring_delays_only(sqlite_place: Place) -> None:
    broker = await sqlite_place.open()
    consumer = await broker.consume(TASKS, prefetch=1)
    waiting = asyncio.create_task(take(consumer, 1))
    await asyncio.sleep(0.1)
    connection = sqlite3.connect(file_of(sqlite_place), timeout=PATIENCE_S)
    connection.execute("INSERT INTO message (id, queue) VALUES (1, 'test.ml_tasks')")
    connection.execute("INSERT INTO payload VALUES (1, 'silent', NULL, X'00')")
    connection.commit()
    connection.close()
    [delivery] = await waiting
    assert delivery.message_id == "silent"


async def test_the_write_ahead_log_stays_short_however_fast_it_is_written(sqlite_place: Place) -> None:
    broker = await sqlite_place.open()
    consumer = await broker.consume(TASKS, prefetch=10)
    log = file_of(sqlite_place).with_name("broker.db-wal")
    longest = written = 0
    body = os.urandom(256 * 1024)
    for number in range(200):
        await broker.publish(TASKS, body, message_id=str(number), timeout_s=PATIENCE_S)
        await consumer.acknowledge(await take(consumer, 1))
        written += len(body)
        longest = max(longest, log.stat().st_size)
    # The limit, and the message that went beyond it.
    assert longest < MAX_LOG_BYTES + 4 * len(body) < written / 2

    async with asyncio.timeout(PATIENCE_S):
        while log.stat().st_size > LONG_LOG_BYTES:
            await asyncio.sleep(0.05)


async def test_somebody_who_stands_still_while_reading_keeps_nobody_from_writing(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "SHORTENING_TIMEOUT_S", 0.5)
    monkeypatch.setattr(sqlite_file, "SHORTENING_PAUSE_S", 1.0)
    broker = await sqlite_place.open()
    consumer = await broker.consume(TASKS, prefetch=10)
    log = file_of(sqlite_place).with_name("broker.db-wal")
    body = os.urandom(1024 * 1024)
    reader = sqlite3.connect(file_of(sqlite_place), isolation_level=None)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM message").fetchone()
        for number in range(24):
            await broker.publish(TASKS, body, message_id=str(number), timeout_s=PATIENCE_S)
            await consumer.acknowledge(await take(consumer, 1))
        assert log.stat().st_size > MAX_LOG_BYTES
    finally:
        reader.close()
    async with asyncio.timeout(PATIENCE_S):
        while log.stat().st_size > LONG_LOG_BYTES:
            await asyncio.sleep(0.05)


async def test_the_dead_leave_nothing_behind(sqlite_place: Place) -> None:
    broker = await sqlite_place.open()
    await broker.ensure_queue(TASKS)
    peer = await sqlite_place.spawn("listen", "key")
    assert await peer.says() == {"listening": True}
    folder = file_of(sqlite_place).with_name("broker.db-receivers")
    assert len(list(folder.iterdir())) == 2
    await peer.kill()
    await until(lambda: len(list(folder.iterdir())) == 1)
    await broker.publish_event("key", b"to nobody")
    await broker.close()
    assert list(folder.iterdir()) == []


async def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "database.db"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE wallet (id)")
    connection.commit()
    connection.close()
    text = tmp_path / "notes.txt"
    text.write_text("not a database\n" * 100)
    for path in (database, text):
        before = path.read_bytes()
        with pytest.raises(Misconfigured, match=path.name):
            await connect(f"sqlite:///{path}", name="test")
        assert path.read_bytes() == before


async def test_two_who_start_first_at_once_find_the_file_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one looks whose file this is, the other makes its tables."""
    url = f"sqlite:///{tmp_path / 'broker.db'}"
    others: list[Future[None]] = []

    class Looking(sqlite3.Connection):
        """The connection of the one that looks, who is interrupted on the way."""

        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if "sqlite_master" in sql and not others:
                monkeypatch.setattr(sqlite3, "connect", connect_as_ever)
                others.append(elsewhere.submit(asyncio.run, connect_and_close()))
                # It may be kept waiting until the look is over.
                wait(others, timeout=0.3)
            return super().execute(sql, *parameters)

    async def connect_and_close() -> None:
        await (await connect(url, name="other")).close()

    connect_as_ever = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", partial(connect_as_ever, factory=Looking))
    with ThreadPoolExecutor(1) as elsewhere:
        await connect_and_close()
    others[0].result()


async def test_events_are_trimmed_and_none_is_seen_twice(sqlite_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_broker, "RENEW_S", 0.5)
    broker = await sqlite_place.open()
    subscription = broker.subscribe("key")
    await until(lambda: broker.connected)
    seen = []
    for number in range(3):
        await broker.publish_event("key", str(number).encode())
        async with asyncio.timeout(PATIENCE_S):
            seen.append(await anext(subscription))
        connection = sqlite3.connect(file_of(sqlite_place), timeout=PATIENCE_S)
        connection.execute("UPDATE event SET published_at = published_at - 100")
        connection.commit()
        # Trimmed when the lease is renewed, every few seconds.
        async with asyncio.timeout(PATIENCE_S):
            while connection.execute("SELECT count(*) FROM event").fetchone()[0] > 1:
                await asyncio.sleep(0.05)
        connection.close()
    assert seen == [b"0", b"1", b"2"]


async def test_processes_killed_in_the_midst_of_writing_leave_a_sound_file(sqlite_place: Place) -> None:
    broker = await sqlite_place.open()
    await broker.ensure_queue(TASKS)
    for _ in range(5):
        peers = [await sqlite_place.spawn("publish", TASKS, 100_000) for _ in range(2)]
        peers += [await sqlite_place.spawn("work", TASKS, 5) for _ in range(2)]
        await peers[-1].says()
        for peer in peers:
            await peer.kill()
    consumer = await broker.consume(TASKS, prefetch=1000)
    async with asyncio.timeout(PATIENCE_S):
        while (depth := await broker.depth(TASKS)).ready or depth.unacknowledged:
            if depth.ready:
                await consumer.acknowledge(await consumer.receive(1000))
            # To ask for the depth takes no turn of the event loop, on which it is noticed that the killed are gone.
            await asyncio.sleep(0.01)
    await broker.close()
    connection = sqlite3.connect(file_of(sqlite_place))
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        in_dead_letters = connection.execute("SELECT count(*) FROM message").fetchone()
        assert connection.execute("SELECT count(*) FROM payload").fetchone() == in_dead_letters
    finally:
        connection.close()
