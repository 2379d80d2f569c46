"""A limit for request bodies, for frameworks that read bodies themselves."""

from collections.abc import Mapping

from foretell.kit.asgi import BODY_SETTING, Application, BodyTooLarge, Message, Receive, Scope, Send


class BodyLimit:
    """Raises `BodyTooLarge` from `receive` if a body, or its Content-Length, is larger than `max_bytes`.

    So memory is bounded, and the code that reads the body answers the client.
    """

    def __init__(
        self, app: Application, *, max_bytes: int, larger: Mapping[str, tuple[int, str]] | None = None
    ) -> None:
        """`larger`: paths with other limits, and the settings of these limits."""
        self._app = app
        self._max_bytes = max_bytes
        self._larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0
        max_bytes, setting = self._larger.get(scope.get("path", ""), (self._max_bytes, BODY_SETTING))
        too_large = _announced(scope) > max_bytes

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if too_large or received > max_bytes:
                raise BodyTooLarge(max_bytes=max_bytes, setting=setting)
            return message

        await self._app(scope, receive_within_limit, send)


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        # The server refuses a length with more digits.
        if name == b"content-length" and value.isdigit() and len(value) < 20:
            return int(value)
    return 0
