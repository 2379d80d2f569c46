"""Bodies and Standard Webhooks headers of the events that are sent."""

import base64
import hmac
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from foretell.contracts import http
from foretell.domain.notifications.outbox import Taken

_encode = msgspec.json.Encoder().encode
_USER_AGENT = "Foretell-Webhooks"


class Message(msgspec.Struct, frozen=True):
    """An event with its encoded body, the same for every endpoint."""

    event: http.Event
    body: bytes


def encoded(event: http.Event) -> Message:
    """Encode the body of an event."""
    body = http.EventBody(type=event.type, timestamp=event.timestamp, data=event.data, sequence=event.sequence)
    return Message(event, _encode(body))


def body_for(message: Message, endpoint: Taken) -> bytes:
    """The body for this endpoint; for the bot with the chat that it has to notify."""
    if endpoint.kind != "telegram":
        return message.body
    chat = _encode({"chat_id": endpoint.chat_id, "user_id": endpoint.user_id})
    return message.body[:-1] + b',"telegram":' + chat + b"}"


def headers(event: http.Event, body: bytes, secrets: Iterable[bytes], at: datetime) -> Sequence[tuple[str, str]]:
    """The headers of an attempt made `at` this time, with one signature for each secret."""
    identifier, timestamp = str(event.id), str(int(at.timestamp()))
    signed = f"{identifier}.{timestamp}.".encode() + body
    return (
        ("content-type", "application/json"),
        ("user-agent", _USER_AGENT),
        ("webhook-id", identifier),
        ("webhook-timestamp", timestamp),
        ("webhook-signature", " ".join(_signature(secret, signed) for secret in secrets)),
    )


def _signature(secret: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()
