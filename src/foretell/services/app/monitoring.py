"""A client of the monitoring service, so that the operators' page needs only the app."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import structlog

from foretell.kit.clock import now
from foretell.kit.errors import ForetellError, MayBeDone
from foretell.services.app.settings import AppSettings

log = structlog.get_logger()

#: The app answers within 5 s.
_TIMEOUT_S = 3.0
#: Moving thousands of messages takes long, and the operator waits for it.
_MOVING_TIMEOUT_S = 120.0
_MOST_BYTES = 32 * 1024 * 1024
_LOOK_FOR_LINES_EVERY_S = 1.0
#: Log lines may arrive some seconds late.
_LATE = timedelta(seconds=15)
_MOST_LINES = 1000
_encode = msgspec.json.Encoder(order="deterministic").encode


class MonitoringAway(ForetellError):
    """The monitoring service does not answer, so nothing can be said of this. Predictions go on without it."""

    code = "monitoring_away"
    status = 503
    outcome = "not_done"
    retry_after_s = 5.0


class MonitoringNotSet(ForetellError):
    """This installation's app does not know a monitoring service: FORETELL_MONITORING_URL is not set."""

    code = "monitoring_not_set"
    status = 503
    outcome = "not_done"
    retry_after_s = 60.0


class MonitoringRefused(ForetellError):
    """The monitoring service refused this."""

    def __init__(self, problem: Mapping[str, Any], status: int) -> None:
        super().__init__(str(problem.get("detail") or "The monitoring service refused this."))
        self.code = str(problem.get("code") or "refused")  # type: ignore[misc]
        self.status = status  # type: ignore[misc]
        self.details = {name: problem[name] for name in ("errors", "count", "confirmed", "moved") if name in problem}


class Monitoring:
    """A client of the monitoring service."""

    def __init__(self, settings: AppSettings) -> None:
        self._url = settings.monitoring_url
        token = settings.monitoring_token.get_secret_value()
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http: httpx.AsyncClient | None = None

    async def ask(self, path: str, parameters: Mapping[str, Any] | None = None) -> bytes:
        """The JSON answer to a GET. Raises `MonitoringAway`, `MonitoringNotSet`, `MonitoringRefused`."""
        given = {name: value for name, value in (parameters or {}).items() if value is not None}
        return await self._send("GET", path, params=given, timeout=_TIMEOUT_S)

    async def search_logs(self, parameters: Mapping[str, Any]) -> tuple[bytes, str]:
        """The matching lines, and the `Link` header that leads to earlier ones (empty without any)."""
        answer = await self._answer("GET", "/reports/logs", params=dict(parameters), timeout=_TIMEOUT_S)
        return answer.content, answer.headers.get("link", "").replace("</reports/logs", "</admin/logs")

    async def read(self, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """The decoded answer to a GET. Raises the same as `ask`."""
        return msgspec.json.decode(await self.ask(path, parameters))

    async def tell(self, method: str, path: str, body: Any = None, **parameters: Any) -> dict[str, Any]:
        """Send a request that changes something. Also raises `MayBeDone` when its outcome is unknown."""
        try:
            answer = await self._send(method, path, params=parameters, json=body, timeout=_MOVING_TIMEOUT_S)
        except MonitoringAway as error:
            if isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout):
                raise
            raise MayBeDone(part="monitoring service") from error
        told: dict[str, Any] = msgspec.json.decode(answer)
        return told

    async def _send(self, method: str, path: str, **rest: Any) -> bytes:
        return (await self._answer(method, path, **rest)).content

    async def _answer(self, method: str, path: str, **rest: Any) -> httpx.Response:
        if not self._url:
            raise MonitoringNotSet
        if self._http is None:
            # trust_env: the services of one installation don't use the machine's proxy.
            self._http = httpx.AsyncClient(base_url=self._url, headers=self._headers, trust_env=False)
        try:
            answer = await self._http.request(method, path, **rest)
        except (httpx.TransportError, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise MonitoringAway from error
        if answer.status_code in (401, 403, 421) or answer.status_code >= 500 or len(answer.content) > _MOST_BYTES:
            # A wrong token is an error of the installation, not of the caller.
            log.warning("monitoring_not_asked", path=path, status=answer.status_code)
            raise MonitoringAway
        if answer.status_code >= 400:
            try:
                problem = msgspec.json.decode(answer.content)
            except msgspec.DecodeError:
                problem = {}
            raise MonitoringRefused(problem if isinstance(problem, dict) else {}, answer.status_code)
        return answer

    async def follow_logs(self, parameters: Mapping[str, Any]) -> AsyncIterator[list[Any]]:
        """New lines at every poll, which may be none. Keeps polling while the service is unavailable."""
        shown: set[bytes] = set()
        began = now()
        first = True
        while True:
            span = {"since": (began - _LATE).astimezone(UTC).isoformat(), "limit": _MOST_LINES}
            began = now()
            try:
                lines = await self.read("/reports/logs", {**parameters, **span})
            except (MonitoringAway, MonitoringNotSet):
                lines = []
            keyed = [(_encode(line), line) for line in lines]
            # The first poll only marks the existing lines as shown.
            yield [] if first else [line for key, line in keyed if key not in shown]
            if keyed:
                shown, first = {key for key, _ in keyed}, False
            first = False
            await asyncio.sleep(_LOOK_FOR_LINES_EVERY_S)

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()


def part(name: str) -> str:
    """Quote a segment of a path."""
    return quote(name, safe="")


def moment(text: datetime | None) -> str | None:
    """A time in the format of the monitoring service."""
    return None if text is None else text.astimezone(UTC).isoformat()
