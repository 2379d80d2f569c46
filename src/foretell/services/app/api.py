"""The FastAPI part of the app: all routes except `POST /predictions/predict`, and the middleware of all routes."""

from collections.abc import Iterable

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match, Route

import foretell
from foretell.kit.asgi import Application, Scope
from foretell.kit.body_limit import BodyLimit
from foretell.kit.request_log import RequestLog
from foretell.kit.routing import HotRoute
from foretell.kit.swagger import PATHS, Documentation
from foretell.kit.unpacking import Unpacking
from foretell.services.app import problems
from foretell.services.app.bot_only import BotOnly
from foretell.services.app.openapi import Api
from foretell.services.app.operator_only import OperatorOnly
from foretell.services.app.page import serving
from foretell.services.app.routes import (
    about,
    access,
    accounts,
    admin,
    api_keys,
    credits,
    events,
    models,
    my_account,
    predictions,
    sessions,
    telegram,
    telegram_bot,
    webhooks,
)
from foretell.services.app.settings import AppSettings
from foretell.services.app.state import AppState
from foretell.services.app.submit_operation import SUBMIT_PATH
from foretell.services.app.whole_paths import WholePaths

_ROUTERS = (
    *(about, access, accounts, api_keys, credits, events, models, my_account, predictions, sessions),
    *(telegram, telegram_bot, webhooks),
    *admin.MODULES,
)
_TITLE = "Foretell"
_DESCRIPTION = """\
Ask models for predictions. Register with `POST /users`, log in with `POST /token`, and ask with
`POST /predictions/predict`. A prediction costs credits once it succeeds.

Problems are `application/problem+json` (RFC 9457): `code` is stable and for programs, `detail` is for people.
"""


class _PlainRoute(Route):
    """A route to a plain ASGI app, named in the scope for the request log. FastAPI names only its own routes."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return match, child_scope if match is Match.NONE else {**child_scope, "route": self}


def build_api(state: AppState) -> Api:
    """The FastAPI routes, including `/docs` and `/openapi.json`."""
    api = Api(
        title=_TITLE,
        version=foretell.__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # A redirect would go to the host that the request names, which may be forged.
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    api.state.app_state = state
    packages = {"/admin/models": (state.settings.max_package_bytes, "FORETELL_MAX_PACKAGE_BYTES")}
    api.add_middleware(BodyLimit, max_bytes=state.settings.max_body_bytes, larger=packages)
    # Outside the size limit, so that the limit applies to the unpacked body.
    api.add_middleware(Unpacking)
    api.add_middleware(BotOnly, secret=state.settings.bot_secret.get_secret_value(), paths=telegram_bot.PATHS)
    api.add_middleware(OperatorOnly, state=state)
    # Around both, which compare paths.
    api.add_middleware(WholePaths)
    problems.install(api, _methods())
    for module in _ROUTERS:
        api.include_router(module.router)
    documentation = Documentation(_TITLE, api.openapi)
    for path in PATHS:
        api.routes.append(_PlainRoute(path, documentation, include_in_schema=False))
    page = serving.Page()
    for path in serving.PATHS:
        api.routes.append(_PlainRoute(path, page, include_in_schema=False))
    return api


def prepare_routes(api: Api) -> None:
    """Let FastAPI prepare its routes now, and not while the first requests wait: it takes a tenth of a second."""
    for route in api.routes:
        route.matches({"type": "http", "method": "GET", "path": "/", "headers": []})


def _methods() -> dict[str, list[str]]:
    """The methods of each path of the OpenAPI document."""
    methods = {SUBMIT_PATH: ["POST"]}
    for module in _ROUTERS:
        for route in module.router.routes:
            if route.include_in_schema:
                methods.setdefault(route.path_format, []).extend(sorted(route.methods))
    return methods


def surround(app: Application, settings: AppSettings, hot: Iterable[HotRoute] = ()) -> RequestLog:
    """`app` (with the hot route) with request ids, the request log, HTTP metrics and, if origins are set, CORS."""
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=[
                *("Authorization", "X-API-Key", "Idempotency-Key", "Prefer", "X-Request-ID", "Last-Event-ID"),
                *("traceparent", "tracestate"),
            ],
            expose_headers=["Location", "Retry-After", "X-Request-ID", "Preference-Applied"],
        )
    return RequestLog(
        app,
        paths=[SUBMIT_PATH, *(route.path_format for module in _ROUTERS for route in module.router.routes)],
        named_parameters=["prediction_id", "webhook_id"],
        # Requests from other web pages need the CORS middleware, which direct routes skip.
        hot=() if settings.cors_origins else hot,
    )
