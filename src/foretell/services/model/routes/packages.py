"""`POST /packages`: a model package that an operator sent to the app, to be checked, and installed if it is ready.

Only for whoever has the admin token. It is off where FORETELL_MODEL_UPLOADS is, which production is without a word.
"""

from collections.abc import AsyncIterator
from pathlib import Path

from foretell.inference.arriving import Arriving
from foretell.kit.asgi import BodyTooLarge
from foretell.kit.problems import InvalidRequest
from foretell.kit.routing import Answer, AsgiRequest, Request, Route, json_answer
from foretell.services.model.admin import AdminToken
from foretell.services.model.settings import ModelSettings

_SETTING = "FORETELL_MAX_PACKAGE_BYTES"


class Packages:
    """The route."""

    def __init__(self, settings: ModelSettings, admin: AdminToken, folder: Path) -> None:
        """`folder` is where packages are installed."""
        self._arriving = Arriving(settings)
        self._max_bytes = settings.max_package_bytes
        self._admin = admin
        self._folder = folder

    @property
    def routes(self) -> list[Route]:
        return [Route("POST", "/packages", self.take)]

    async def take(self, request: Request) -> Answer:
        """What the check found, as `Checked`."""
        self._admin.check(request)
        install, replace = _flag(request, "install"), _flag(request, "replace")
        assert isinstance(request, AsgiRequest)
        async with self._arriving.archive(self._bounded(request)) as archive:
            return json_answer(await self._arriving.check(archive, self._folder, install=install, replace=replace))

    async def _bounded(self, request: AsgiRequest) -> AsyncIterator[bytes]:
        left = self._max_bytes
        async for chunk in request.chunks():
            left -= len(chunk)
            if left < 0:
                raise BodyTooLarge(max_bytes=self._max_bytes, setting=_SETTING)
            yield chunk


def _flag(request: Request, name: str) -> bool:
    value = request.query_value(name) or "false"
    if value not in ("true", "false"):
        raise InvalidRequest([{"detail": f"{name} is true or false.", "parameter": name}])
    return value == "true"
