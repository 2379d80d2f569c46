"""The parts of Telegram's objects that the bot uses, with the Bot API's names. Other fields are ignored."""

from typing import Any

import msgspec
from msgspec import Struct, field


class User(Struct, frozen=True):
    """A person, or another bot."""

    id: int
    is_bot: bool = False
    first_name: str = ""
    username: str | None = None
    language_code: str | None = None


class Chat(Struct, frozen=True):
    """A chat. The id of a private chat is the person's id."""

    id: int
    type: str = "private"


class SuccessfulPayment(Struct, frozen=True):
    """Stars that were paid."""

    currency: str
    total_amount: int
    invoice_payload: str
    telegram_payment_charge_id: str


class Message(Struct, frozen=True):
    """A message. One without `text` is a photo, a sticker, a joining member or the like."""

    message_id: int
    chat: Chat
    from_user: User | None = field(default=None, name="from")
    text: str | None = None
    reply_to_message: "Message | None" = None
    forward_origin: dict[str, Any] | None = None
    successful_payment: SuccessfulPayment | None = None


class CallbackQuery(Struct, frozen=True):
    """A tap on a button of one of the bot's messages."""

    id: str
    from_user: User = field(name="from")
    message: Message | None = None
    data: str | None = None


class PreCheckoutQuery(Struct, frozen=True):
    """A person is about to pay; must be answered within 10 s."""

    id: str
    from_user: User = field(name="from")
    currency: str
    total_amount: int
    invoice_payload: str


class ChatMember(Struct, frozen=True):
    """A member's status in a chat. A bot that a person has blocked is `kicked`."""

    status: str


class ChatMemberUpdated(Struct, frozen=True):
    """The bot was added to a chat or removed from it."""

    chat: Chat
    from_user: User = field(name="from")
    new_chat_member: ChatMember


class Update(Struct, frozen=True):
    """One update; all but one of the fields are None."""

    update_id: int
    message: Message | None = None
    edited_message: Message | None = None
    callback_query: CallbackQuery | None = None
    pre_checkout_query: PreCheckoutQuery | None = None
    my_chat_member: ChatMemberUpdated | None = None

    @property
    def person(self) -> User | None:
        """The person who caused it; None for channels and other bots."""
        of = (
            self.message or self.edited_message or self.callback_query or self.pre_checkout_query or self.my_chat_member
        )
        user = None if of is None else of.from_user
        return None if user is None or user.is_bot else user

    @property
    def of_money(self) -> bool:
        """Whether it is about a payment, and must be stored even if the person sends too much."""
        paid = self.message is not None and self.message.successful_payment is not None
        return paid or self.pre_checkout_query is not None


#: The kinds of updates that the bot requests.
WANTED = ("message", "edited_message", "callback_query", "pre_checkout_query", "my_chat_member")


class Identity(Struct, frozen=True):
    """`getMe`."""

    id: int
    username: str = ""


decode_update = msgspec.json.Decoder(Update).decode
