"""Restricts the bot's routes to the bot; all other callers get 404."""

import hashlib
import hmac
from collections.abc import Iterable

from starlette.requests import Request

from foretell.kit.asgi import Application, Receive, Scope, Send
from foretell.kit.problems import NothingHere
from foretell.services.app.problems import problem_response


class BotOnly:
    """Answers 404, as for an unknown path, unless the bearer token is the bot's secret."""

    def __init__(self, app: Application, *, secret: str, paths: Iterable[str]) -> None:
        """Protects `paths` and everything below them. With an empty `secret`, every caller gets 404."""
        self._app = app
        self._expected = _digest(secret.encode()) if secret else None
        self._paths = tuple(paths)
        self._below = tuple(f"{path}/" for path in self._paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._keeps(scope["path"]) and not self._is_bot(scope):
            # Before the body and the method are checked, since other errors would reveal that the route exists.
            response = problem_response(NothingHere(), Request(scope))
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _keeps(self, path: str) -> bool:
        return path in self._paths or path.startswith(self._below)

    def _is_bot(self, scope: Scope) -> bool:
        if self._expected is None:
            return False
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        # Digests have the same length, so that the time of the comparison reveals nothing.
        return hmac.compare_digest(_digest(token.strip()), self._expected) and scheme.lower() == b"bearer"


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
