"""A Bot API server for tests, over real HTTP, with the rules that Telegram documents; people are driven by the test."""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.telegram.http import HttpServer
from tests.telegram.rules import Refusal, bad, check_invoice, keyboard, shown

TOKEN = "123456789:AAF-test_token_of_the_tests_server_0"


@dataclass
class Limits:
    """How much a bot may say before it hears 429. None: as much as it likes."""

    per_second: int | None = None
    #: How long that second is: a test on a busy machine takes a longer one.
    second_s: float = 1.0
    #: So long a chat rests after a message, in seconds.
    chat_rest_s: float | None = None
    #: What `retry_after` says; Telegram says whole seconds.
    retry_after: float = 1


@dataclass
class Post:
    """A message of the bot in a chat, as it stands."""

    chat_id: int
    message_id: int
    text: str
    buttons: list[list[dict[str, Any]]]
    invoice: dict[str, Any] | None = None
    reply_to: int | None = None
    #: All that it said before.
    history: list[str] = field(default_factory=list)

    def button(self, text: str) -> dict[str, Any]:
        """The button that says so, or begins so."""
        found = [each for row in self.buttons for each in row if each["text"].startswith(text)]
        assert found, f"no button {text!r} among {[each['text'] for row in self.buttons for each in row]}"
        return found[0]


class TelegramServer:
    """One bot's Telegram."""

    def __init__(self, limits: Limits | None = None, *, pre_checkout_s: float = 10.0, host: str = "127.0.0.1") -> None:
        self.limits = limits or Limits()
        self.token = TOKEN
        self.username = "foretell_test_bot"
        self._http = HttpServer(self._handle, host)
        self._changed = asyncio.Condition()
        self._updates: deque[dict[str, Any]] = deque()
        self._next_update = 1000
        self._next_message = 0
        self._polling: asyncio.Future[None] | None = None
        #: Messages of the bot by chat and number, and in the order in which they were sent or changed.
        self.posts: dict[tuple[int, int], Post] = {}
        self.log: list[tuple[str, Post, str]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.blocked: set[int] = set()
        self.chats: dict[int, str] = {}
        self.taps: dict[str, dict[str, Any] | None] = {}
        self.checkouts: dict[str, dict[str, Any] | None] = {}
        self.charges: dict[str, dict[str, Any]] = {}
        self.pre_checkout_s = pre_checkout_s
        self.webhook: dict[str, Any] = {"url": ""}
        #: Where the addresses of webhooks lead in this test.
        self.webhook_leads_to: dict[str, str] = {}
        self.webhook_answers: list[int] = []
        #: Says for a call why it is refused now, if it is.
        self.refuses: Callable[[str, dict[str, Any]], Refusal | None] = lambda method, given: None
        self._said_at: deque[float] = deque()
        self._rests_until: dict[int, float] = {}
        self._bringing: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """For `TELEGRAM_API_URL`."""
        return f"http://{self._http.host}:{self._http.port}"

    async def start(self) -> None:
        """Be there (again, at the same address)."""
        await self._http.start()

    async def stop(self) -> None:
        """Be away: connections are cut, new ones refused. What is known stays known."""
        if self._bringing is not None:
            self._bringing.cancel()
            await asyncio.gather(self._bringing, return_exceptions=True)
            self._bringing = None
        await self._http.stop()
        self._polling = None

    # What the bot calls

    async def _handle(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        _, bot, method = path.split("/", 2)
        given = json.loads(body or b"{}")
        self.calls.append((method, given))
        try:
            if not bot.startswith("bot") or ":" not in bot:
                raise Refusal(404, "Not Found")
            if bot != f"bot{self.token}":
                raise Refusal(401, "Unauthorized")
            refusal = self.refuses(method, given)
            if refusal is not None:
                raise refusal
            call = getattr(self, f"_call_{method}", None)
            if call is None:
                raise Refusal(404, "Not Found: method not found")
            result = await call(given)
        except Refusal as refusal:
            return refusal.code, refusal.answer
        async with self._changed:
            self._changed.notify_all()
        return 200, {"ok": True, "result": result}

    async def _call_getMe(self, given: dict[str, Any]) -> Any:
        return {"id": 123456789, "is_bot": True, "first_name": "Foretell", "username": self.username}

    async def _call_setMyCommands(self, given: dict[str, Any]) -> Any:
        for each in given["commands"]:
            if not 1 <= len(each["command"]) <= 32 or not 1 <= len(each["description"]) <= 256:
                raise bad("BOT_COMMAND_INVALID")
        return True

    async def _call_getUpdates(self, given: dict[str, Any]) -> Any:
        if self.webhook["url"]:
            raise Refusal(
                409,
                "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete it first",
            )
        if self._polling is not None and not self._polling.done():
            # The one that waits hears of the new one.
            self._polling.set_exception(
                Refusal(
                    409,
                    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
                )
            )
        polling = self._polling = asyncio.get_running_loop().create_future()
        offset, limit = given.get("offset", 0), given.get("limit", 100)
        if offset < 0:
            offset = max(0, self._next_update + offset)
        while offset and self._updates and self._updates[0]["update_id"] < offset:
            self._updates.popleft()
        allowed = given.get("allowed_updates")
        deadline = time.monotonic() + given.get("timeout", 0)
        try:
            while True:
                if allowed:
                    self._updates = deque(each for each in self._updates if each.keys() & set(allowed))
                if self._updates:
                    return list(self._updates)[:limit]
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return []
                await self._until_changed(polling, left_s)
        finally:
            if not polling.done():
                polling.cancel()

    async def _until_changed(self, polling: "asyncio.Future[None]", within_s: float) -> None:
        async def changed() -> None:
            async with self._changed:
                await self._changed.wait()

        waiting = asyncio.ensure_future(changed())
        try:
            await asyncio.wait({waiting, polling}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            if polling.done():
                polling.result()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    def _speak(self, chat_id: int) -> None:
        """Whether the bot may say something there now."""
        if chat_id not in self.chats:
            raise bad("chat not found")
        if chat_id in self.blocked:
            raise Refusal(403, "Forbidden: bot was blocked by the user")
        now, limits = time.monotonic(), self.limits
        while self._said_at and self._said_at[0] <= now - limits.second_s:
            self._said_at.popleft()
        too_many = limits.per_second is not None and len(self._said_at) >= limits.per_second
        too_soon = limits.chat_rest_s is not None and self._rests_until.get(chat_id, 0.0) > now
        if too_many or too_soon:
            wait = limits.retry_after
            raise Refusal(429, f"Too Many Requests: retry after {wait}", retry_after=wait)
        self._said_at.append(now)
        self._rests_until[chat_id] = now + (limits.chat_rest_s or 0.0)

    async def _call_sendMessage(self, given: dict[str, Any]) -> Any:
        self._speak(given["chat_id"])
        text, buttons = shown(given.get("text"), given.get("parse_mode")), keyboard(given.get("reply_markup"))
        reply = given.get("reply_parameters") or {}
        return self._post(given["chat_id"], text, buttons, reply_to=reply.get("message_id"))

    def _post(self, chat_id: int, text: str, buttons: list[list[dict[str, Any]]], **more: Any) -> dict[str, Any]:
        post = Post(chat_id, self._new_message_id(), text, buttons, **more)
        self.posts[chat_id, post.message_id] = post
        self.log.append(("sent", post, text))
        return self._as_message(post)

    def _new_message_id(self) -> int:
        self._next_message += 1
        return self._next_message

    def _as_message(self, post: Post) -> dict[str, Any]:
        me = {"id": 123456789, "is_bot": True, "first_name": "Foretell", "username": self.username}
        return {
            "message_id": post.message_id,
            "date": int(time.time()),
            "chat": {"id": post.chat_id, "type": self.chats[post.chat_id]},
            "from": me,
            "text": post.text,
            "reply_markup": {"inline_keyboard": post.buttons},
        }

    async def _call_editMessageText(self, given: dict[str, Any]) -> Any:
        self._speak(given["chat_id"])
        text, buttons = shown(given.get("text"), given.get("parse_mode")), keyboard(given.get("reply_markup"))
        post = self.posts.get((given["chat_id"], given["message_id"]))
        if post is None:
            raise bad("message to edit not found")
        if (post.text, post.buttons) == (text, buttons):
            raise bad(
                "message is not modified: specified new message content and reply markup are exactly the same as a "
                "current content and reply markup of the message"
            )
        post.history.append(post.text)
        post.text, post.buttons = text, buttons
        self.log.append(("edited", post, text))
        return self._as_message(post)

    async def _call_answerCallbackQuery(self, given: dict[str, Any]) -> Any:
        if given["callback_query_id"] not in self.taps:
            raise bad("query is too old and response timeout expired or query ID is invalid")
        if len(given.get("text") or "") > 200:
            raise bad("MESSAGE_TOO_LONG")
        self.taps[given["callback_query_id"]] = given
        return True

    async def _call_sendInvoice(self, given: dict[str, Any]) -> Any:
        self._speak(given["chat_id"])
        check_invoice(given)
        pay = [[{"text": f"Pay ⭐️{given['prices'][0]['amount']}", "pay": True}]]
        return self._post(given["chat_id"], given["title"], pay, invoice=given)

    async def _call_answerPreCheckoutQuery(self, given: dict[str, Any]) -> Any:
        if self.checkouts.get(given["pre_checkout_query_id"], given) is not None:
            raise bad("query is too old and response timeout expired or query ID is invalid")
        if not given["ok"] and not given.get("error_message"):
            raise bad("error message is empty")
        self.checkouts[given["pre_checkout_query_id"]] = given
        return True

    async def _call_refundStarPayment(self, given: dict[str, Any]) -> Any:
        charge = self.charges.get(given["telegram_payment_charge_id"])
        if charge is None or charge["user_id"] != given["user_id"]:
            raise bad("CHARGE_NOT_FOUND")
        if charge["refunded"]:
            raise bad("CHARGE_ALREADY_REFUNDED")
        charge["refunded"] = True
        return True

    async def _call_setWebhook(self, given: dict[str, Any]) -> Any:
        url = given.get("url", "")
        if url and not url.startswith("https://"):
            raise bad("bad webhook: An HTTPS URL must be provided for webhook")
        self.webhook = given
        if url and self._bringing is None:
            self._bringing = asyncio.create_task(self._bring())
        return True

    async def _call_deleteWebhook(self, given: dict[str, Any]) -> Any:
        self.webhook = {"url": ""}
        if given.get("drop_pending_updates"):
            self._updates.clear()
        return True

    async def _call_getWebhookInfo(self, given: dict[str, Any]) -> Any:
        return {"url": self.webhook["url"], "pending_update_count": len(self._updates)}

    async def _bring(self) -> None:
        """Bring updates to the webhook, one after the other, again until it says 2xx."""
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                async with self._changed:
                    await self._changed.wait_for(lambda: bool(self._updates and self.webhook["url"]))
                headers = {"X-Telegram-Bot-Api-Secret-Token": self.webhook.get("secret_token", "")}
                target = self.webhook_leads_to[self.webhook["url"]]
                try:
                    answer = await client.post(target, json=self._updates[0], headers=headers)
                    self.webhook_answers.append(answer.status_code)
                    if answer.is_success:
                        self._updates.popleft()
                        continue
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.02)

    # What happens to the bot

    async def happen(self, **update: Any) -> int:
        """An update; returns its number."""
        async with self._changed:
            number = self._next_update
            self._next_update += 1
            self._updates.append({"update_id": number, **update})
            self._changed.notify_all()
        return number

    @property
    def unconfirmed(self) -> int:
        """How many updates the bot has not confirmed."""
        return len(self._updates)

    async def until(self, condition: Callable[[], Any], what: str, *, within_s: float = 60.0) -> Any:
        """What `condition` returns, as soon as it is true; looked at whenever the bot has called."""
        found = condition()
        deadline = time.monotonic() + within_s
        while not found:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                said = [f"{kind} {post.chat_id}: {text!r}" for kind, post, text in self.log[-8:]]
                raise AssertionError(f"waited in vain for {what}; the last that was said:\n" + "\n".join(said))
            async with self._changed:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), min(left_s, 0.25))
            found = condition()
        return found

    def posts_in(self, chat_id: int) -> list[Post]:
        """All messages of the bot in a chat, oldest first."""
        return [post for (chat, _), post in self.posts.items() if chat == chat_id]


@asynccontextmanager
async def telegram_server(limits: Limits | None = None, **more: Any) -> AsyncIterator[TelegramServer]:
    """A server that is there inside."""
    server = TelegramServer(limits, **more)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
