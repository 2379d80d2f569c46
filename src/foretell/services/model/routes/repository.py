"""`/v2/repository`: which models there are, and loading and unloading them, for whoever has the admin token.

Without an admin token in the settings the index may be read, and nothing can be changed.
"""

import msgspec

from foretell.contracts import open_inference as v2
from foretell.kit.routing import Answer, Request, Route, json_answer
from foretell.services.model.admin import AdminToken
from foretell.services.model.models import Models
from foretell.services.model.routes.open_inference import InvalidInference, read_struct


class _LoadRequest(msgspec.Struct, frozen=True):
    parameters: v2.Parameters | None = None


class _UnloadRequest(msgspec.Struct, frozen=True):
    #: What clients of Triton send along (`unload_dependents`) means nothing here: no model depends on another.
    parameters: v2.Parameters | None = None


class Repository:
    """The routes."""

    def __init__(self, models: Models, admin: AdminToken) -> None:
        self._models = models
        self._admin = admin

    @property
    def routes(self) -> list[Route]:
        return [
            Route("POST", "/v2/repository/index", self.index),
            Route("POST", "/v2/repository/models/{name}/load", self.load),
            Route("POST", "/v2/repository/models/{name}/unload", self.unload),
        ]

    async def index(self, request: Request) -> Answer:
        """Every version of every model and how it is."""
        if self._admin.is_set:
            self._admin.check(request)
        asked = read_struct(request, await request.body() or b"{}", v2.RepositoryIndexRequest)
        return json_answer(
            [
                v2.RepositoryModel(status.name, status.version, status.state, status.reason)
                for status in self._models.statuses
                if status.state == "READY" or not asked.ready
            ]
        )

    async def load(self, request: Request) -> Answer:
        """Load a model as it is on the disk now; if it is served, requests under way are finished by the old one."""
        self._admin.check(request)
        asked = read_struct(request, await request.body() or b"{}", _LoadRequest)
        if asked.parameters:
            raise InvalidInference(reason="a model is loaded from its package; a config or files can't be sent along")
        await self._models.load(request.parameters["name"])
        return json_answer({})

    async def unload(self, request: Request) -> Answer:
        """Serve a model no more; requests under way are finished."""
        self._admin.check(request)
        read_struct(request, await request.body() or b"{}", _UnloadRequest)
        await self._models.unload(request.parameters["name"])
        return json_answer({})
