"""Access control: requests need the token, if one is set."""

from foretell.kit.asgi import Application, Receive, Scope, Send, shows_token
from foretell.kit.errors import ForetellError
from foretell.kit.problems import problem_bytes

#: Paths without access control: health and documentation.
_OPEN = ("/health", "/docs", "/openapi.json")


class TokenNeeded(ForetellError):
    """This needs the token of the monitoring service: Authorization: Bearer TOKEN."""

    code = "monitoring_token_needed"
    status = 401


class Access:
    """Passes requests with `token` to `app`; with an empty one, all requests.

    `/health` and paths below it, the documentation and its files are always open.
    """

    def __init__(self, app: Application, token: str) -> None:
        self._app = app
        self._expected = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or not self._expected
            or _is_open(scope["path"])
            or shows_token(scope, self._expected)
        ):
            await self._app(scope, receive, send)
            return
        status, headers, body = problem_bytes(TokenNeeded(), scope["path"])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _is_open(path: str) -> bool:
    return any(path == each or path.startswith(each + "/") for each in _OPEN)
