"""The channels of notifications: webhooks, signed by Standard Webhooks, and a Telegram chat."""

import asyncio
import base64
import hashlib
import hmac
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec
import structlog

from foretell.kit.posting import host_and_port
from foretell.services.monitoring.alerts.notification_text import (
    Message,
    payload_of,
    text_of,
    trial_payload,
    trial_text,
)
from foretell.services.monitoring.alerts.settings import AlertSettings, webhook_key

log = structlog.get_logger()

_LONGEST_ANSWER_BYTES = 64 * 1024
_LONGEST_ERROR = 200
_LONGEST_PAUSE_S = 3600.0
#: The 4xx statuses that are temporary.
_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one attempt; `final`: a retry would fail, too."""

    taken: bool
    detail: str
    final: bool = False
    #: The receiver's Retry-After.
    retry_after_s: float | None = None


class Channel(Protocol):
    """A receiver of notifications."""

    @property
    def name(self) -> str:
        """The name in stored notifications; contains no secret."""

    def body_of(self, message: Message) -> str:
        """The body of the message for this channel."""

    def trial(self, at: datetime) -> str:
        """The body of a test."""

    async def send(self, notice_id: str, body: str, at: datetime) -> Outcome:
        """Try to deliver it, within some seconds. `notice_id` is the same in all attempts. Never raises."""


def channels_of(settings: AlertSettings, *, deadline_s: float = 10.0) -> dict[str, Channel]:
    """The configured channels, by name. `deadline_s` is for one attempt, up to the last byte of the answer."""
    for name in ("httpx", "httpcore"):
        # These loggers write whole URLs, and Telegram's contain the token.
        logging.getLogger(name).setLevel(logging.WARNING)
    key = webhook_key(settings.alert_webhook_secret.get_secret_value())
    channels: list[Channel] = [
        Webhook(url.get_secret_value(), key, settings.alert_language, deadline_s) for url in settings.alert_webhook_urls
    ]
    token = settings.telegram_token.get_secret_value()
    chat, base_url = settings.alert_telegram_chat, settings.telegram_api_url
    if token and chat:
        channels.append(Telegram(base_url, token, chat, settings.alert_language, deadline_s))
    elif chat:
        log.warning("alert_channel_incomplete", channel="telegram", missing="TELEGRAM_TOKEN")
    return {channel.name: channel for channel in channels}


class Webhook:
    """A URL that receives every message as JSON."""

    def __init__(self, url: str, key: bytes | None, language: str, deadline_s: float) -> None:
        """`key` signs the messages; without one they are not signed."""
        self._url = url
        self._key = key
        self._language = language
        self._deadline_s = deadline_s
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        # A part of the URL's hash distinguishes webhooks of one host without showing the path, often a secret.
        digest = hashlib.sha256(url.encode()).hexdigest()[:8]
        self._name = f"webhook {host_and_port(parts.hostname or '', port)} {digest}"

    @property
    def name(self) -> str:
        """Host, port and a hash that distinguishes several webhooks of one host."""
        return self._name

    def body_of(self, message: Message) -> str:
        """The message as JSON."""
        return _encode(payload_of(message, self._language)).decode()

    def trial(self, at: datetime) -> str:
        """A test as JSON."""
        return _encode(trial_payload(at, self._language)).decode()

    async def send(self, notice_id: str, body: str, at: datetime) -> Outcome:
        """Post the body. Everything but 2xx is a failure, also a redirect; 4xx is final unless it is temporary."""
        content = body.encode()
        timestamp = str(int(at.timestamp()))
        headers = {"Content-Type": "application/json", "webhook-id": notice_id, "webhook-timestamp": timestamp}
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, notice_id, timestamp, content)
        return await _post(self._url, content, headers, self._deadline_s, secret=self._url)


def signature(key: bytes, notice_id: str, timestamp: str, content: bytes) -> str:
    """The signature by Standard Webhooks."""
    signed = hmac.new(key, f"{notice_id}.{timestamp}.".encode() + content, hashlib.sha256).digest()
    return "v1," + base64.b64encode(signed).decode()


class Telegram:
    """A Telegram chat that receives messages from the bot."""

    name = "telegram"

    def __init__(self, base_url: str, token: str, chat: str, language: str, deadline_s: float) -> None:
        self._url = f"{base_url.rstrip('/')}/bot{token}/sendMessage"
        self._token = token
        self._chat = chat
        self._language = language
        self._deadline_s = deadline_s

    def body_of(self, message: Message) -> str:
        """The message as a call of `sendMessage`, as plain text, so that nothing in it is parsed as markup."""
        return self._call(text_of(message, self._language))

    def trial(self, at: datetime) -> str:
        """A test."""
        return self._call(trial_text(self._language))

    def _call(self, text: str) -> str:
        return _encode({"chat_id": self._chat, "text": text, "link_preview_options": {"is_disabled": True}}).decode()

    async def send(self, notice_id: str, body: str, at: datetime) -> Outcome:
        """Call `sendMessage`. The outcome never contains the token."""
        headers = {"Content-Type": "application/json"}
        return await _post(self._url, body.encode(), headers, self._deadline_s, secret=self._token, explains=True)


async def _post(
    url: str, content: bytes, headers: Mapping[str, str], deadline_s: float, *, secret: str, explains: bool = False
) -> Outcome:
    """Post once, over a new connection, since notifications are rare and a kept one would be stale. Never raises.

    The outcome never contains `secret`. `explains`: the answer's body describes the result, as Telegram's does.
    """
    try:
        async with (
            asyncio.timeout(deadline_s),
            httpx.AsyncClient(
                verify=_tls(), follow_redirects=False, timeout=deadline_s, trust_env=not _is_loopback(url)
            ) as client,
            client.stream("POST", url, content=content, headers={"User-Agent": "foretell", **headers}) as response,
        ):
            answer = await _beginning(response)
    except (TimeoutError, httpx.TimeoutException):
        return Outcome(False, f"no answer within {deadline_s:g} s")
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError, ValueError) as error:
        return Outcome(False, _without(secret, f"{type(error).__name__}: {error}"))
    return _outcome(response, _said(answer) if explains else {}, secret)


@cache
def _tls() -> ssl.SSLContext:
    """The TLS context; cached, because reading the certificates is slow."""
    return httpx.create_ssl_context()


def _is_loopback(url: str) -> bool:
    """Whether the host is the machine's loopback, which a configured proxy can't reach."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _beginning(response: httpx.Response) -> bytes:
    answer = b""
    async for part in response.aiter_raw():
        answer += part
        if len(answer) > _LONGEST_ANSWER_BYTES:
            break
    return answer


def _outcome(response: httpx.Response, said: Mapping[str, Any], secret: str) -> Outcome:
    status = response.status_code
    if response.is_success and said.get("ok", True) is not False:
        return Outcome(True, str(status))
    description = said.get("description")
    detail = f"{status} {description}" if isinstance(description, str) else str(status)
    if response.is_redirect:
        detail = f"{status}: redirects are not followed"
    final = response.is_client_error and status not in _PASSING
    return Outcome(False, _without(secret, detail), final, _retry_after_s(response, said))


def _said(answer: bytes) -> dict[str, Any]:
    """The decoded body of Telegram's answer."""
    try:
        said = msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _retry_after_s(response: httpx.Response, said: Mapping[str, Any]) -> float | None:
    parameters = said.get("parameters")
    wanted = parameters.get("retry_after") if isinstance(parameters, dict) else None
    if not isinstance(wanted, (int, float)):
        header = response.headers.get("retry-after", "")
        wanted = int(header) if header.isascii() and header.isdecimal() and len(header) < 10 else None
    return None if wanted is None else min(max(0.0, float(wanted)), _LONGEST_PAUSE_S)


def _without(secret: str, text: str) -> str:
    """`text`, unless it contains `secret` or a large part of it."""
    path = urlsplit(secret).path if "://" in secret else secret
    shown = text if len(path) < 2 else text.replace(secret, "…").replace(path, "…")
    return "".join(each if each.isprintable() else " " for each in shown)[:_LONGEST_ERROR]
