"""`POST /packages`: checks a model package that an operator uploaded to the app, and installs it if it is ready.

It needs the admin token. FORETELL_MODEL_UPLOADS turns it off; in production it is off by default.
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
        """`folder` is the folder into which packages are installed."""
        self._arriving = Arriving(settings)
        self._max_bytes = settings.max_package_bytes
        self._admin = admin
        self._folder = folder

    @property
    def routes(self) -> list[Route]:
        return [Route("POST", "/packages", self.take)]

    async def take(self, request: Request) -> Answer:
        """Check a package; answers with `Checked`."""
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
