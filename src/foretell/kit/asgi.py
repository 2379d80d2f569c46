"""HTTP helpers for plain ASGI: reading a body within limits, answering, and the routes for operators."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from hmac import compare_digest
from typing import Any

import msgspec

from foretell.kit import metrics
from foretell.kit.disk_folders import FOLDERS
from foretell.kit.errors import ForetellError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

#: Key in the scope of internal requests of the process to itself: these are neither logged nor counted.
ASKED_WITHIN = "foretell.asked_within"

#: Key in the scope of requests over a connection: their `Held`, the bytes they use (connection_bounds.py).
HELD = "foretell.held"

#: Checks one part: returns if it works, raises if not.
Check = Callable[[], Coroutine[Any, Any, None]]
#: A check that takes longer has failed. Clients of /health wait only a little longer than this.
_CHECK_TIMEOUT_S = 2.5


#: The setting that limits bodies of most services.
BODY_SETTING = "FORETELL_MAX_BODY_BYTES"


class BodyTooLarge(ForetellError):
    """The body is larger than the {max_bytes} bytes that are allowed ({setting})."""

    code = "body_too_large"
    status = 413

    def __init__(self, *, max_bytes: int, setting: str = BODY_SETTING) -> None:
        """`setting` is the one that raises the limit; if empty, the message does not name one."""
        if setting:
            super().__init__(max_bytes=max_bytes, setting=setting)
        else:
            super().__init__(f"The body is larger than the {max_bytes} bytes that are allowed.", max_bytes=max_bytes)


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


#: A large body is a `bytearray`, to avoid a copy.
Body = bytes | bytearray


async def read_body(receive: Receive, max_bytes: int, setting: str = BODY_SETTING) -> Body:
    """The whole body of a request. Raises `BodyTooLarge` as soon as it is, and `ClientGone`."""
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        body: bytes = message.get("body", b"")
        if len(body) > max_bytes:
            raise BodyTooLarge(max_bytes=max_bytes, setting=setting)
        return body
    # Not a list of parts: with small parts it would be many times as large as the body.
    whole = bytearray()
    while True:
        if message["type"] != "http.request":
            raise ClientGone
        whole += message.get("body", b"")
        if len(whole) > max_bytes:
            raise BodyTooLarge(max_bytes=max_bytes, setting=setting)
        if not message.get("more_body"):
            return whole
        # Free the last part before waiting for the next one.
        del message
        message = await receive()


async def respond(send: Send, status: int, body: bytes, content_type: bytes, headers: Headers = ()) -> None:
    """Send a whole answer."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})


JSON = b"application/json"
_METRICS_CLOSED = (
    b'{"detail":"This needs the token of the monitoring service: Authorization: Bearer TOKEN.","status":401}'
)


def shows_token(scope: Scope, expected: bytes) -> bool:
    """Whether a request has this token (`Authorization: Bearer TOKEN`). Always false for an empty one."""
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, token = given.partition(b" ")
    # Compared in constant time, also for a wrong scheme, so that the time reveals nothing about the token.
    return compare_digest(token.strip(), expected) and scheme.lower() == b"bearer" and expected != b""


class Operations:
    """`/health`, `/health/live`, `/health/ready` and `/metrics`, the same for every service, as a plain ASGI app.

    `checks` maps a part to its check; the disks that this process writes to are also checked. A service is
    *healthy* when all of them pass; it is *ready* when those named in `needed_to_serve` pass, and those of
    `until_ready`, which do not affect health; it is *live* as long as `live` returns True. A check that takes longer
    than `check_timeout_s` has failed. `details` adds fields to `/health`. With `metrics_token`, `/metrics` needs that
    token; an empty one refuses all.
    """

    def __init__(
        self,
        service: str,
        *,
        instance: str,
        version: str,
        checks: dict[str, Check] | None = None,
        needed_to_serve: Iterable[str] = (),
        until_ready: dict[str, Check] | None = None,
        live: Callable[[], bool] = lambda: True,
        details: Callable[[], dict[str, Any]] = dict,
        check_timeout_s: float = _CHECK_TIMEOUT_S,
        metrics_token: str | None = None,
    ) -> None:
        self._identity = {"service": service, "instance": instance, "version": version}
        asked, until_ready = {**(checks or {}), "disk": FOLDERS.check}, until_ready or {}
        self._checks = asked | until_ready
        self._health = frozenset(asked)
        self._needed_to_serve = frozenset(needed_to_serve) | until_ready.keys()
        self._live = live
        self._details = details
        self._check_timeout_s = check_timeout_s
        self._metrics_token = None if metrics_token is None else metrics_token.encode()
        self._asking: dict[str, asyncio.Task[None]] = {}
        metrics.UP.labels(service, instance, version).set(1)

    def handles(self, path: str) -> bool:
        """Whether a request for `path` belongs here."""
        return path == "/metrics" or path == "/health" or path.startswith("/health/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            await respond(send, 405, b'{"detail":"Only GET."}', b"application/problem+json", [(b"allow", b"GET, HEAD")])
        elif path == "/metrics" and self._metrics_token is not None and not shows_token(scope, self._metrics_token):
            await respond(send, 401, _METRICS_CLOSED, b"application/problem+json", [(b"www-authenticate", b"Bearer")])
        elif path == "/metrics":
            await respond(send, 200, metrics.render(), metrics.CONTENT_TYPE.encode())
        elif path == "/health/live":
            alive = self._live()
            await self._answer(send, 200 if alive else 503, {"status": "alive" if alive else "stuck"})
        elif path == "/health/ready":
            failing = await self._failing(self._needed_to_serve)
            await self._answer(
                send, 503 if failing else 200, {"status": "not ready" if failing else "ready", "failing": failing}
            )
        elif path == "/health":
            failing = await self._failing(self._health)
            healthy = not failing and self._live()
            body = {"status": "healthy" if healthy else "unhealthy", "failing": failing, **self._details()}
            await self._answer(send, 200 if healthy else 503, body)
        else:
            await respond(send, 404, b'{"detail":"There is nothing here."}', b"application/problem+json")

    async def _failing(self, names: frozenset[str]) -> dict[str, str]:
        ordered = sorted(names)
        reasons = await asyncio.gather(*(self._reason(name) for name in ordered))
        return {name: reason for name, reason in zip(ordered, reasons, strict=True) if reason is not None}

    async def _reason(self, name: str) -> str | None:
        """The reason if this part fails, else None."""
        asking = self._asking.get(name)
        if asking is None:
            # One check at a time: otherwise checks of a hanging part would pile up. And never cancelled:
            # that may cost the part a connection.
            asking = self._asking[name] = asyncio.create_task(self._checks[name](), name=name)
            asking.add_done_callback(self._asked)
        done, _ = await asyncio.wait({asking}, timeout=self._check_timeout_s)
        if not done:
            return f"no answer within {self._check_timeout_s:g} s"
        error = asking.exception()
        return None if error is None else str(error) or type(error).__name__

    def _asked(self, asking: "asyncio.Task[None]") -> None:
        del self._asking[asking.get_name()]
        if not asking.cancelled():
            # Read the exception, so that asyncio does not warn if no caller waits any more.
            asking.exception()

    async def _answer(self, send: Send, status: int, body: dict[str, Any]) -> None:
        if not body.get("failing"):
            body.pop("failing", None)
        await respond(send, status, msgspec.json.encode({**body, **self._identity}), JSON)
