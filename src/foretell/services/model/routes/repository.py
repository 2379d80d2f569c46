"""`/v2/repository`: the index of models, and loading and unloading them with the admin token.

If no admin token is configured, only the index is available.
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
    #: Triton clients send `unload_dependents`, which is ignored because no model depends on another.
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
        """The state of every version of every model."""
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
        """Load a model from the disk. Requests under way finish on the earlier one."""
        self._admin.check(request)
        asked = read_struct(request, await request.body() or b"{}", _LoadRequest)
        if asked.parameters:
            raise InvalidInference(reason="a model is loaded from its package; a config or files can't be sent along")
        await self._models.load(request.parameters["name"])
        return json_answer({})

    async def unload(self, request: Request) -> Answer:
        """Stop serving a model. Requests under way finish."""
        self._admin.check(request)
        read_struct(request, await request.body() or b"{}", _UnloadRequest)
        await self._models.unload(request.parameters["name"])
        return json_answer({})
