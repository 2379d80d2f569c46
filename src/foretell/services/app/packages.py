"""Model packages that operators upload to the app, which loads no model itself.

The configured model service checks and installs them. Without one, a separate process on this machine does.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec

from foretell.inference.arriving import CHECK_TIMEOUT_S, Archive, Arriving, CannotCheck, Checked
from foretell.inference.live import operators_folder
from foretell.kit import structs
from foretell.kit.errors import ForetellError, MayBeDone
from foretell.services.app.settings import AppSettings

_CONNECT_TIMEOUT_S = 3.0
#: The time of the check, with a margin for the upload and the installation.
_TIMEOUT_S = CHECK_TIMEOUT_S + 30.0
_CHUNK_BYTES = 256 * 1024


class PackageRefused(ForetellError):
    """The model service refused the package."""

    status = 422

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or "The model service refused the package."))
        self.code = str(problem.get("code") or "not_a_package")  # type: ignore[misc]


class Packages:
    """Checks and installs packages, one at a time."""

    def __init__(self, settings: AppSettings) -> None:
        self._settings = settings
        self._arriving = Arriving(settings)

    @property
    def folder(self) -> Path:
        """The folder of uploaded packages."""
        return operators_folder(self._settings.models_dir, self._settings.data_dir)

    async def take(
        self,
        content: AsyncIterator[bytes],
        *,
        install: bool,
        replace: bool,
        arrived: Callable[[], Awaitable[None]],
    ) -> tuple[Archive, Checked]:
        """Check the package in this ZIP archive, and install it if it is ready and `install` is true.

        `arrived` is awaited before any of its code runs. Raises `NoUploads`, `NotAPackage`, `CheckTooLong`,
        `CannotCheck`, `PackageRefused`, `MayBeDone`, and what `content` and `arrived` raise.
        """
        async with self._arriving.archive(content) as archive:
            await arrived()
            if self._settings.package_service_url:
                return archive, await self._send(archive, install=install, replace=replace)
            return archive, await self._arriving.check(archive, self.folder, install=install, replace=replace)

    async def _send(self, archive: Archive, *, install: bool, replace: bool) -> Checked:
        """Send the package to the model service."""
        token = self._settings.admin_token.get_secret_value()
        timeout = httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
        try:
            # trust_env: the services of one installation don't use the machine's proxy.
            async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
                answer = await client.post(
                    f"{self._settings.package_service_url.rstrip('/')}/packages",
                    params={"install": install, "replace": replace},
                    headers={"Authorization": f"Bearer {token}", "Content-Type": "application/zip"},
                    content=_chunks(archive.path),
                )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise CannotCheck(reason="the model service does not answer") from error
        except httpx.TransportError as error:
            raise MayBeDone(part="model service") from error
        try:
            if answer.status_code == 200:
                return structs.decode(answer.content, Checked)
            problem = structs.decode(answer.content, dict[str, Any])
        except msgspec.MsgspecError:
            problem = {}
        if answer.status_code == 422:
            raise PackageRefused(problem)
        said = problem.get("detail") or f"status {answer.status_code}"
        raise CannotCheck(reason=f"the model service says: {said}")


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
