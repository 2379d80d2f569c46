"""The bot and the dispatcher, killed between a result and its message: every result is told, once."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.services_system import Backends
from tests.system import wait_until
from tests.telegram.people import Person
from tests.telegram.rules import Refusal
from tests.telegram.server import TelegramServer, telegram_server
from tests.telegram.system import BotSystem, bot_system

pytestmark = pytest.mark.faults

SECONDS = float(os.environ.get("FORETELL_FAULT_SECONDS", "3"))
#: So that nothing but the dispatcher's word brings a result.
NO_LOOKING = {"FORETELL_BOT_LOOK_AFTER_S": "3600"}
LOVELY = "What a lovely flight, thank you!"


def results(telegram: TelegramServer) -> list[tuple[int, int]]:
    """Every time that a message became a result."""
    return [(post.chat_id, post.message_id) for _, post, text in telegram.log if "worker worker" in text]


async def test_one_fault_after_another(backends: Backends, tmp_path: Path) -> None:
    async with telegram_server() as telegram, bot_system(backends, tmp_path, telegram, **NO_LOOKING) as system:
        people = [Person(telegram, 1001 + number) for number in range(3)]
        for person in people:
            await person.types("/start")
            await person.sees("Hello")
        await the_bot_is_killed_between_a_result_and_its_message(system, people[0])
        await the_dispatcher_is_killed_between_a_result_and_its_message(system, people[1])
        await telegram_is_away_while_results_come(system, people)
        told = [(post.chat_id, post.message_id) for post in telegram.posts.values() if "Positive" in post.text]
        assert sorted(results(telegram)) == sorted(told), "each once"
        assert len(told) == 2 + len(people)
        assert await system.audit() == []


async def the_bot_is_killed_between_a_result_and_its_message(system: BotSystem, person: Person) -> None:
    """The bot hears of the result and can't tell it; the one after it can."""
    edits: list[object] = []

    def refuses(method: str, given: object) -> Refusal | None:
        if method != "editMessageText":
            return None
        edits.append(given)
        return Refusal(502, "Bad Gateway")

    system.telegram.refuses = refuses
    await person.types(f"/predict {LOVELY}")
    await system.telegram.until(lambda: edits, "an attempt to tell the result")
    await system.end(system.alive("bot"), signal.SIGKILL)
    system.telegram.refuses = lambda method, given: None
    await system.heal()
    await person.sees("Positive")


async def the_dispatcher_is_killed_between_a_result_and_its_message(system: BotSystem, person: Person) -> None:
    """The bot is there and takes nothing, so that the dispatcher waits for its 204 when it is killed."""
    (worker,), (bot,) = system.alive("worker"), system.alive("bot")
    system.kill(worker, signal.SIGSTOP)
    await person.types(f"/predict {LOVELY}")
    await person.sees("Working on it")
    while await system.count("queued") == 0:
        await asyncio.sleep(0.02)
    system.kill(bot, signal.SIGSTOP)
    system.kill(worker, signal.SIGCONT)
    await system.drain()
    await system.end(system.alive("dispatcher"), signal.SIGKILL)
    system.kill(bot, signal.SIGCONT)
    await system.heal()
    await person.sees("Positive")


async def telegram_is_away_while_results_come(system: BotSystem, people: list[Person]) -> None:
    """Results wait in the bot's outbox."""
    telegram, (worker,), (bot,) = system.telegram, system.alive("worker"), system.alive("bot")
    system.kill(worker, signal.SIGSTOP)
    for person in people:
        await person.types(f"/predict {LOVELY}")
        await person.sees("Working on it")
    while await system.count("queued") < len(people):
        await asyncio.sleep(0.02)
    await telegram.stop()
    system.kill(worker, signal.SIGCONT)
    await system.drain()
    waits = "event_waits"
    await wait_until(lambda: system.log_of(bot).count(waits) >= len(people), timeout_s=60, what="the bot to notice")
    await telegram.start()
    for person in people:
        await telegram.until(
            lambda person=person: not [post for post in telegram.posts_in(person.id) if "Working" in post.text],
            "the result",
        )


async def test_bot_and_dispatcher_are_killed_again_and_again(backends: Backends, tmp_path: Path) -> None:
    async with (
        telegram_server() as telegram,
        bot_system(backends, tmp_path, telegram, workers=2, FORETELL_SIGNUP_CREDITS="1000") as system,
    ):
        people = [Person(telegram, 2001 + number) for number in range(4)]
        before = await system.count()
        for person in people:
            await person.types("/start")
            await person.sees("Hello")
        until = asyncio.get_running_loop().time() + SECONDS
        asked = 0
        async with system.supervised():
            turn = 0
            while asyncio.get_running_loop().time() < until:
                for person in people:
                    await person.types(f"/predict {LOVELY} {asked}")
                    asked += 1
                await asyncio.sleep(0.3)
                for victim in system.alive(("bot", "dispatcher")[turn % 2]):
                    system.kill(victim)
                turn += 1
        await telegram.until(lambda: telegram.unconfirmed == 0, "the bot to take all updates")
        await telegram.until(lambda: len(set(results(telegram))) >= asked, f"{asked} results", within_s=120)
        assert len(results(telegram)) == asked, "each once"
        assert await system.count() == before + asked
        assert await system.audit() == []
