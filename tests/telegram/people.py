"""People who talk to the bot."""

import asyncio
import secrets
import time
from typing import Any

from tests.telegram.server import Post, TelegramServer


class Person:
    """Somebody with a private chat, who may be in groups, too."""

    def __init__(self, server: TelegramServer, number: int, *, language: str = "en", name: str = "Ada") -> None:
        self.server = server
        self.id = number
        self.user = {"id": number, "is_bot": False, "first_name": name, "language_code": language}
        server.chats[number] = "private"

    def joins(self, group: int) -> None:
        """Be in a group."""
        self.server.chats[group] = "supergroup"

    async def _writes(self, chat: int | None, **content: Any) -> dict[str, Any]:
        chat = chat or self.id
        message = {
            "message_id": self.server._new_message_id(),
            "date": int(time.time()),
            "chat": {"id": chat, "type": self.server.chats[chat]},
            "from": self.user,
            **content,
        }
        await self.server.happen(message=message)
        return message

    async def types(self, text: str, *, chat: int | None = None, reply_to: Post | None = None) -> dict[str, Any]:
        """Write a message."""
        reply = {} if reply_to is None else {"reply_to_message": self.server._as_message(reply_to)}
        return await self._writes(chat, text=text, **reply)

    async def forwards(self, text: str) -> dict[str, Any]:
        """Forward somebody else's message."""
        origin = {"type": "hidden_user", "sender_user_name": "Somebody", "date": int(time.time())}
        return await self._writes(None, text=text, forward_origin=origin)

    async def sends_photo(self) -> dict[str, Any]:
        """Send a picture."""
        return await self._writes(None, photo=[{"file_id": "a", "file_unique_id": "b", "width": 1, "height": 1}])

    async def sends_sticker(self) -> dict[str, Any]:
        """Send a sticker."""
        return await self._writes(None, sticker={"file_id": "a", "file_unique_id": "b", "type": "regular"})

    async def edits(self, message: dict[str, Any], text: str) -> None:
        """Change a message of one's own."""
        await self.server.happen(edited_message={**message, "text": text, "edit_date": int(time.time())})

    async def begin_tap(self, post: Post, text: str) -> str:
        """Tap a button, and do not wait."""
        return await self.tap_data(post, post.button(text)["callback_data"])

    async def tap_data(self, post: Post, data: str) -> str:
        """Tap a button that says `data`, be it there or not any more."""
        number = secrets.token_hex(8)
        self.server.taps[number] = None
        await self.server.happen(
            callback_query={
                "id": number,
                "from": self.user,
                "message": self.server._as_message(post),
                "chat_instance": "1",
                "data": data,
            }
        )
        return number

    async def answer_to(self, number: str) -> dict[str, Any]:
        """What the bot said to a tap."""
        answer: dict[str, Any] = await self.server.until(lambda: self.server.taps[number], "an answer to a tap")
        return answer

    async def taps(self, post: Post, text: str) -> dict[str, Any]:
        """Tap a button, and wait until the bot has ended its waiting."""
        return await self.answer_to(await self.begin_tap(post, text))

    async def sees(self, text: str, *, chat: int | None = None) -> Post:
        """The newest message of the bot that says so, as soon as there is one."""
        where = chat or self.id

        def found() -> Post | None:
            return next((post for post in reversed(self.server.posts_in(where)) if text in post.text), None)

        post: Post = await self.server.until(found, f"{text!r} in chat {where}")
        return post

    async def sees_new(self, text: str, *, after: Post) -> Post:
        """The same in a message that came after another."""

        def found() -> Post | None:
            newer = [post for post in self.server.posts_in(after.chat_id) if post.message_id > after.message_id]
            return next((post for post in reversed(newer) if text in post.text), None)

        post: Post = await self.server.until(found, f"{text!r} after message {after.message_id}")
        return post

    async def blocks(self) -> None:
        """Want to hear no more."""
        self.server.blocked.add(self.id)
        await self._member("kicked")

    async def unblocks(self) -> None:
        """Want to hear again."""
        self.server.blocked.discard(self.id)
        await self._member("member")

    async def _member(self, status: str) -> None:
        await self.server.happen(
            my_chat_member={
                "chat": {"id": self.id, "type": "private"},
                "from": self.user,
                "date": int(time.time()),
                "old_chat_member": {"status": "member", "user": {"id": 123456789, "is_bot": True, "first_name": "F"}},
                "new_chat_member": {"status": status, "user": {"id": 123456789, "is_bot": True, "first_name": "F"}},
            }
        )

    async def pays(self, post: Post) -> str | None:
        """Pay an invoice; returns the charge, None when the bot did not want it."""
        assert post.invoice is not None
        amount = post.invoice["prices"][0]["amount"]
        number = secrets.token_hex(8)
        self.server.checkouts[number] = None
        of = {"currency": "XTR", "total_amount": amount, "invoice_payload": post.invoice["payload"]}
        await self.server.happen(pre_checkout_query={"id": number, "from": self.user, **of})
        answer = await self.server.until(
            lambda: self.server.checkouts[number], "an answer before the payment", within_s=self.server.pre_checkout_s
        )
        if not answer["ok"]:
            return None
        charge = f"stars_{secrets.token_hex(8)}"
        self.server.charges[charge] = {"user_id": self.id, "amount": amount, "refunded": False}
        await self.tells_of_payment(post, charge)
        return charge

    async def tells_of_payment(self, post: Post, charge: str) -> None:
        """The service message of a payment; Telegram may bring it twice."""
        assert post.invoice is not None
        paid = {
            "currency": "XTR",
            "total_amount": post.invoice["prices"][0]["amount"],
            "invoice_payload": post.invoice["payload"],
            "telegram_payment_charge_id": charge,
            "provider_payment_charge_id": "",
        }
        await self._writes(None, successful_payment=paid)


async def quiet(server: TelegramServer) -> None:
    """Return when the bot has confirmed all updates, and has asked for more."""
    await server.until(lambda: server.unconfirmed == 0, "the bot to confirm all updates")
    await asyncio.sleep(0)
