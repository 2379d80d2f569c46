"""Restricts `/admin` to operators; all other accounts get 404."""

from starlette.requests import Request

from foretell.domain.accounts import registration
from foretell.domain.operators.journal import Actor
from foretell.kit.asgi import Application, Receive, Scope, Send
from foretell.kit.errors import ForetellError
from foretell.kit.problems import NothingHere
from foretell.services.app.authentication import token_of
from foretell.services.app.client_address import client_address
from foretell.services.app.problems import problem_response
from foretell.services.app.state import AppState

PREFIX = "/admin"
#: The scope key of the acting operator.
ACTOR = "foretell.actor"


class OperatorOnly:
    """Answers 401 without valid credentials and 404 without the operator role, before body and method are checked.

    The role is read from the database for every request, so that a removed operator loses access at once. A token of a
    chat never has operator rights.
    """

    def __init__(self, app: Application, *, state: AppState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and (path == PREFIX or path.startswith(PREFIX + "/")):
            try:
                scope[ACTOR] = await self._actor(scope)
            except ForetellError as error:
                await problem_response(error, Request(scope))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _actor(self, scope: Scope) -> Actor:
        token = token_of(scope["headers"], scope["method"])
        authenticator = self._state.authenticator
        identity = authenticator.identify_cached(token) or await authenticator.identify(token)
        if identity.chat is not None:
            raise NothingHere
        async with self._state.database.snapshot() as connection:
            user = await registration.find_user_by_id(connection, identity.user_id)
        if user.role != "operator" or not user.active:
            raise NothingHere
        return Actor(user.id, user.username, client_address(scope, self._state.settings.trusted_proxies))
