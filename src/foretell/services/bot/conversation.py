"""Handles updates: in order for each person, concurrently for different people."""

import asyncio

import structlog

from foretell.client import ApiError, Unreachable
from foretell.kit.errors import ForetellError, Unavailable
from foretell.services.bot.accounts import NotLinked
from foretell.services.bot.keyboards import Button, Keyboard
from foretell.services.bot.measures import UPDATES
from foretell.services.bot.routing import Router
from foretell.services.bot.storage.inbox import Inbox, Waiting
from foretell.services.bot.talk import Parts, Talk
from foretell.services.bot.telegram.api import Blocked, TelegramAway, TelegramError, TokenRefused, TooManyMessages
from foretell.services.bot.telegram.types import Update, decode_update
from foretell.services.bot.words import Words, language_of

log = structlog.get_logger()

#: An update during whose handling the process has ended this often is given up: once among others, then alone.
_MOST_ATTEMPTS = 5
#: An answer that Telegram does not accept is retried with growing pauses, for a limited time.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_ANSWERED_WITHIN_S = 600.0
#: People who are answered at the same time.
_MOST_PEOPLE = 100


class Conversation:
    """Takes updates from the inbox and passes them to the routers."""

    def __init__(self, parts: Parts, inbox: Inbox, router: Router) -> None:
        self._parts = parts
        self._inbox = inbox
        self._router = router
        self._places = asyncio.Semaphore(_MOST_PEOPLE)
        # Held by the one update that may have ended an earlier process: others must not be blamed with it again.
        self._alone = asyncio.Lock()
        self._handling: dict[int, asyncio.Task[None]] = {}
        self._again: set[int] = set()
        self._warned: set[int] = set()
        self._closed = False

    async def resume(self) -> None:
        """Handle the updates that an earlier process left."""
        for person_id in await self._inbox.people():
            self.wake(person_id)

    def wake(self, person_id: int) -> None:
        """Handle the waiting updates of this person."""
        if person_id in self._handling:
            self._again.add(person_id)
            return
        task = self._handling[person_id] = asyncio.create_task(self._handle_all(person_id))
        task.add_done_callback(lambda done: self._ended(person_id, done))

    def _ended(self, person_id: int, task: "asyncio.Task[None]") -> None:
        del self._handling[person_id]
        if not task.cancelled() and task.exception() is not None:
            log.error("person_not_answered", exc_info=task.exception())
        if person_id in self._again and not self._closed:
            self._again.discard(person_id)
            self.wake(person_id)

    async def close(self, grace_s: float) -> None:
        """Wait up to `grace_s` for updates being handled; waiting ones stay in the inbox."""
        self._closed = True
        self._again.clear()
        handling = set(self._handling.values())
        if handling:
            _, late = await asyncio.wait(handling, timeout=grace_s)
            for task in late:
                # The next process handles the update again.
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def flooded(self, person_id: int) -> None:
        """A person sends too many updates: log it and answer once, until the inbox is empty."""
        UPDATES.labels("flood").inc()
        if person_id in self._warned:
            return
        self._warned.add(person_id)
        log.warning("person_flooded", person_id=person_id)

    async def _handle_all(self, person_id: int) -> None:
        pause_s, tried_for_s = _FIRST_PAUSE_S, 0.0
        async with self._places:
            while not self._closed and (waiting := await self._inbox.next_of(person_id)) is not None:
                if waiting.attempts >= _MOST_ATTEMPTS and waiting.suspect:
                    await self._give_up(waiting)
                    continue
                wait_s = await self._attempt(waiting)
                if wait_s is not None and tried_for_s < _ANSWERED_WITHIN_S:
                    # Telegram was the problem, not the update, so the attempt does not count.
                    await self._inbox.not_begun(waiting.update_id)
                    await asyncio.sleep(max(wait_s, pause_s))
                    tried_for_s += max(wait_s, pause_s)
                    pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
                    continue
                pause_s, tried_for_s = _FIRST_PAUSE_S, 0.0
                await self._inbox.done(waiting.update_id)
        if person_id in self._warned:
            self._warned.discard(person_id)
            await self._say_too_fast(person_id)

    async def _attempt(self, waiting: Waiting) -> float | None:
        """As `_handle`; alone, if an earlier process may have ended because of this update."""
        if not waiting.suspect:
            return await self._handle_or_stop(waiting)
        async with self._alone:
            await self._inbox.begin_again(waiting.update_id)
            return await self._handle_or_stop(waiting)

    async def _handle_or_stop(self, waiting: Waiting) -> float | None:
        try:
            return await self._handle(waiting)
        except asyncio.CancelledError:
            # The process is told to stop: nothing is wrong with the update.
            await self._inbox.not_begun(waiting.update_id)
            raise

    async def _give_up(self, waiting: Waiting) -> None:
        """Remove the update, and only then tell its person, since even decoding it may end the process."""
        UPDATES.labels("given_up").inc()
        log.error("update_given_up", update_id=waiting.update_id, attempts=waiting.attempts)
        await self._inbox.done(waiting.update_id)
        talk = await self._talk_of(waiting)
        if talk is not None:
            await self._apologize(talk, "error.given_up")

    async def _say_too_fast(self, person_id: int) -> None:
        settings = await self._parts.chats.of(person_id)
        try:
            await self._parts.sender.send(person_id, Words(settings.spoken)("flood"))
        except TelegramError as error:
            log.warning("answer_not_sent", reason=error.message)

    async def _talk_of(self, waiting: Waiting) -> Talk | None:
        """The update with its chat; None if it is of nobody."""
        update = decode_update(waiting.body)
        person = update.person
        if person is None:
            return None
        tap = update.callback_query
        message = update.message or update.edited_message or (tap.message if tap is not None else None)
        settings = await self._parts.chats.of(message.chat.id if message is not None else person.id)
        return Talk(self._parts, update, person, settings)

    async def _handle(self, waiting: Waiting) -> float | None:
        """Answer one update. Returns the seconds until a retry if Telegram did not accept the answer, else None."""
        talk = await self._talk_of(waiting)
        if talk is None:
            return None
        if talk.settings.blocked and talk.update.my_chat_member is None:
            # A person who writes to the bot has unblocked it.
            await self._parts.chats.change(talk.chat_id, blocked=0)
        heard = language_of(talk.person.language_code)
        if talk.settings.heard != heard:
            await self._parts.chats.change(talk.chat_id, heard=heard)
        try:
            await self._answer(talk)
        except Blocked:
            await self._parts.chats.change(talk.chat_id, blocked=1)
            log.info("chat_blocked", chat_id=talk.chat_id)
        except (TelegramAway, TokenRefused, TooManyMessages) as error:
            log.warning("answer_not_sent", update_id=waiting.update_id, reason=error.message)
            return error.retry_after_s or 0.0
        except Exception:
            UPDATES.labels("failed").inc()
            log.exception("update_failed", update_id=waiting.update_id)
            await self._apologize(talk, "error.ours")
        else:
            UPDATES.labels("handled").inc()
        await talk.answer_tap()
        return None

    async def _answer(self, talk: Talk) -> None:
        try:
            await self._dispatch(talk)
        except NotLinked:
            await self._invite(talk)
        except Unreachable as error:
            log.warning("app_unreachable", reason=error.message)
            await self._apologize(talk, "error.away")
        except ApiError as error:
            if error.status_code < 500 and error.status_code != 429:
                raise
            log.warning("app_refused", status=error.status_code, code=error.problem_code)
            await self._apologize(talk, "error.away")
        except Unavailable as error:
            log.warning("bot_database_unavailable", reason=error.message)
            await self._apologize(talk, "error.away")

    async def _invite(self, talk: Talk) -> None:
        if talk.private:
            await talk.say(talk.words("start.first"))
            return
        url = f"https://t.me/{self._parts.username}?start=group"
        await talk.say(
            talk.words("start.first_in_private"), Keyboard([[Button(talk.words.plain("button.open"), url=url)]])
        )

    async def _apologize(self, talk: Talk, key: str) -> None:
        try:
            if talk.tapped_message_id:
                await talk.answer_tap(talk.words.plain(key), alert=True)
            elif talk.private or _is_command(talk.update):
                await talk.say(talk.words(key))
        except (TelegramError, ForetellError) as error:
            log.warning("answer_not_sent", reason=error.message)

    async def _dispatch(self, talk: Talk) -> None:
        tap, message = talk.update.callback_query, talk.update.message
        if tap is not None:
            name, *arguments = (tap.data or "").split(":")
            handler = self._router.buttons.get(name)
            if handler is None or talk.message is None:
                await talk.answer_tap(talk.words.plain("button.old"), alert=True)
                return
            await handler(talk, arguments)
            return
        if message is not None and message.forward_origin is None:
            command = self._command_in(message.text or "")
            if command is not None:
                name, rest = command
                if name in self._router.commands:
                    await self._router.commands[name](talk, rest)
                    return
                if not talk.private:
                    return
        for other in self._router.others:
            if await other(talk):
                return

    def _command_in(self, text: str) -> tuple[str, str] | None:
        """The command and the text after it; None for another text, an empty name for another bot's command."""
        if not text.startswith("/"):
            return None
        parts = text[1:].split(maxsplit=1)
        name, _, addressed = (parts[0] if parts else "").partition("@")
        if addressed and addressed.lower() != self._parts.username.lower():
            return "", ""
        return name.lower(), parts[1].strip() if len(parts) > 1 else ""


def _is_command(update: Update) -> bool:
    return update.message is not None and (update.message.text or "").startswith("/")
