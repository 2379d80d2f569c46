"""Keeps paths that end in a newline from the routes, which would take them for the same paths without it."""

from starlette.requests import Request

from foretell.kit.asgi import Application, Receive, Scope, Send
from foretell.kit.problems import NothingHere
from foretell.services.app.problems import problem_response


class WholePaths:
    """Answers 404 where a path ends in a newline.

    A route's pattern ends in `$`, which in Python matches before a final newline, too. So `/telegram/payments%0A` would
    be answered as `/telegram/payments`, though it is none of the paths that `BotOnly` and `OperatorOnly` compare.
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("\n"):
            await problem_response(NothingHere(), Request(scope))(scope, receive, send)
            return
        await self._app(scope, receive, send)
