"""A bound on the size of request bodies, for frameworks that read bodies themselves."""

from collections.abc import Mapping

from foretell.kit.asgi import BODY_SETTING, Application, BodyTooLarge, Message, Receive, Scope, Send


class BodyLimit:
    """Raises `BodyTooLarge` out of `receive` once a body is, or says that it will be, larger than `max_bytes`.

    So nothing is gathered beyond the limit, and whoever reads the body explains it to the client.
    """

    def __init__(
        self, app: Application, *, max_bytes: int, larger: Mapping[str, tuple[int, str]] | None = None
    ) -> None:
        """`larger` are the limits of paths that may take more, and the settings that they are."""
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
        # A length of more digits than that is refused by the server already.
        if name == b"content-length" and value.isdigit() and len(value) < 20:
            return int(value)
    return 0
