"""`POST /notifications`: the dispatcher hands over an event, signed as Standard Webhooks says. Stored, then 204."""

from typing import Any

import msgspec
from msgspec import Raw, Struct
from standardwebhooks import Webhook, WebhookVerificationError

from foretell.kit.errors import ForetellError
from foretell.kit.routing import Answer, Request, Route
from foretell.services.bot.storage.outbox import Outbox

_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


class NotSigned(ForetellError):
    """The signature is missing, wrong or too old."""

    code = "not_signed"
    status = 401
    challenge = ""


class NotUnderstood(ForetellError):
    """The body is no event: {reason}"""

    code = "not_understood"
    status = 422


class _Receiver(Struct):
    chat_id: int
    user_id: Any = None


class _Prediction(Struct):
    id: str


class _Notification(Struct):
    type: str
    data: Raw
    telegram: _Receiver
    sequence: int = 0


_decode = msgspec.json.Decoder(_Notification).decode


class Notifications:
    """Takes events for chats."""

    def __init__(self, outbox: Outbox, secret: str) -> None:
        self._outbox = outbox
        self._webhook = Webhook(secret)

    @property
    def route(self) -> Route:
        """Where they come."""
        return Route("POST", "/notifications", self.take)

    async def take(self, request: Request) -> Answer:
        """Store one; the same one twice is stored once."""
        body = bytes(await request.body())
        headers = {name: (request.header(name.encode()) or b"").decode("latin-1") for name in _HEADERS}
        self._check(body, headers)
        try:
            told = _decode(body)
            # A prediction ends once, however many ways we hear of it.
            finished = told.type == "prediction.finished"
            event = msgspec.json.decode(told.data, type=_Prediction).id if finished else headers["webhook-id"]
        except msgspec.MsgspecError as error:
            raise NotUnderstood(reason=str(error)) from None
        account = told.telegram.user_id if isinstance(told.telegram.user_id, str) else ""
        await self._outbox.put(event, told.telegram.chat_id, told.type, bytes(told.data), account=account)
        return Answer(204, [], b"")

    def _check(self, body: bytes, headers: dict[str, str]) -> None:
        try:
            self._webhook.verify(body, headers, json_parse=False)
        except (WebhookVerificationError, ValueError):
            # A ValueError: a signature that is no base64, a body that is no text.
            raise NotSigned from None
