"""`POST /notifications`: stores an event from the dispatcher, signed by Standard Webhooks, then answers 204."""

from typing import Any

import msgspec
from msgspec import Raw, Struct
from standardwebhooks import Webhook, WebhookVerificationError

from foretell.kit import structs
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
    """Receives events for chats."""

    def __init__(self, outbox: Outbox, secret: str) -> None:
        self._outbox = outbox
        self._webhook = Webhook(secret)

    @property
    def route(self) -> Route:
        """The route of notifications."""
        return Route("POST", "/notifications", self.take)

    async def take(self, request: Request) -> Answer:
        """Store one event; a repeated one is stored once."""
        body = bytes(await request.body())
        headers = {name: (request.header(name.encode()) or b"").decode("latin-1") for name in _HEADERS}
        self._check(body, headers)
        try:
            told = _decode(body)
            # By the prediction's id, since polling may report the same end.
            finished = told.type == "prediction.finished"
            event = structs.decode(told.data, _Prediction).id if finished else headers["webhook-id"]
        except msgspec.MsgspecError as error:
            raise NotUnderstood(reason=str(error)) from None
        account = told.telegram.user_id if isinstance(told.telegram.user_id, str) else ""
        await self._outbox.put(event, told.telegram.chat_id, told.type, bytes(told.data), account=account)
        return Answer(204, [], b"")

    def _check(self, body: bytes, headers: dict[str, str]) -> None:
        try:
            self._webhook.verify(body, headers, json_parse=False)
        except (WebhookVerificationError, ValueError):
            # A ValueError means invalid base64 in the signature, or a body that is not UTF-8.
            raise NotSigned from None
