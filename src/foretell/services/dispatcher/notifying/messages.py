"""What is sent: bodies, and the headers that Standard Webhooks asks for."""

import base64
import hmac
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from foretell.contracts import http
from foretell.domain.notifications.outbox import Taken

_encode = msgspec.json.Encoder().encode
_USER_AGENT = "Foretell-Webhooks"


class Told(msgspec.Struct, frozen=True):
    """An event as it is sent, whoever receives it."""

    event: http.Event
    body: bytes


def told(event: http.Event) -> Told:
    """An event with its body."""
    body = http.EventBody(type=event.type, timestamp=event.timestamp, data=event.data, sequence=event.sequence)
    return Told(event, _encode(body))


def body_for(message: Told, endpoint: Taken) -> bytes:
    """The body for this endpoint: the bot has to know which chat it is for."""
    if endpoint.kind != "telegram":
        return message.body
    chat = _encode({"chat_id": endpoint.chat_id, "user_id": endpoint.user_id})
    return message.body[:-1] + b',"telegram":' + chat + b"}"


def headers(event: http.Event, body: bytes, secrets: Iterable[bytes], at: datetime) -> Sequence[tuple[str, str]]:
    """The headers of one attempt `at` this moment, signed with each of the secrets."""
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
