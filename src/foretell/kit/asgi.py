"""The little of HTTP that plain ASGI needs: reading a body within bounds, answering, and the operator's routes."""

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

#: In the scope of what a process asks itself, which is no request of anybody: it is neither logged nor counted.
ASKED_WITHIN = "foretell.asked_within"

#: In the scope of what came over a connection: what the request holds of the bytes under way (connection_bounds.py).
HELD = "foretell.held"

#: Says whether one part works: returns when it does, raises what is wrong.
Check = Callable[[], Coroutine[Any, Any, None]]
#: A part that has not said by then that it works does not: whoever asks how we are waits only a little longer.
_CHECK_TIMEOUT_S = 2.5


#: Bounds the bodies of most services.
BODY_SETTING = "FORETELL_MAX_BODY_BYTES"


class BodyTooLarge(ForetellError):
    """The body is larger than the {max_bytes} bytes that are allowed ({setting})."""

    code = "body_too_large"
    status = 413

    def __init__(self, *, max_bytes: int, setting: str = BODY_SETTING) -> None:
        """`setting` raises the bound; where there is none, nothing is said of it."""
        if setting:
            super().__init__(max_bytes=max_bytes, setting=setting)
        else:
            super().__init__(f"The body is larger than the {max_bytes} bytes that are allowed.", max_bytes=max_bytes)


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


#: A large one is not copied, only to be a `bytes`.
Body = bytes | bytearray


async def read_body(receive: Receive, max_bytes: int, setting: str = BODY_SETTING) -> Body:
    """The whole body of a request. Raises `BodyTooLarge` as soon as it is, and `ClientGone`."""
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        body: bytes = message.get("body", b"")
        if len(body) > max_bytes:
            raise BodyTooLarge(max_bytes=max_bytes, setting=setting)
        return body
    # Not a list of parts: of small ones, it would be many times as large as the body.
    whole = bytearray()
    while True:
        if message["type"] != "http.request":
            raise ClientGone
        whole += message.get("body", b"")
        if len(whole) > max_bytes:
            raise BodyTooLarge(max_bytes=max_bytes, setting=setting)
        if not message.get("more_body"):
            return whole
        # While we wait, the last part is there but once.
        del message
        message = await receive()


async def respond(send: Send, status: int, body: bytes, content_type: bytes, headers: Headers = ()) -> None:
    """Answer at once with `body`."""
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
    """Whether a request shows this token, `Authorization: Bearer TOKEN`. Nobody shows an empty one."""
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, token = given.partition(b" ")
    # Compared whatever the scheme is, and in constant time: how long it takes says nothing of the token.
    return compare_digest(token.strip(), expected) and scheme.lower() == b"bearer" and expected != b""


class Operations:
    """`/health`, `/health/live`, `/health/ready` and `/metrics`, the same for every service, as a plain ASGI app.

    `checks` maps a part to what asks it; the disks that this process writes to are looked at besides. A service is
    *healthy* when all of them pass; it is *ready* when those named in `needed_to_serve` pass, and those of
    `until_ready`, which are no matter of health; it is *live* as long as `live` returns True. A check that takes longer
    than `check_timeout_s` has not passed. `details` adds fields to `/health`. With
    `metrics_token`, whoever reads `/metrics` must show it; an empty one is nobody's.
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
        """Why this part fails, if it does."""
        asking = self._asking.get(name)
        if asking is None:
            # One at a time: asked again and again, a part that is silent would have them pile up. And never cancelled:
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
            # Nobody may wait for it any more; that is no reason for a warning.
            asking.exception()

    async def _answer(self, send: Send, status: int, body: dict[str, Any]) -> None:
        if not body.get("failing"):
            body.pop("failing", None)
        await respond(send, status, msgspec.json.encode({**body, **self._identity}), JSON)
