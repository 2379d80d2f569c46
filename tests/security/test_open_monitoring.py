"""The monitoring service of a development installation asks for no token: programs come in, other web pages do not."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.monitoring.watched import Watching, watching

CALLS = [("GET", "/reports/logs"), ("GET", "/alerts"), ("POST", "/logs"), ("POST", "/queues/ml_tasks/redrive")]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Watching]:
    async with watching(f"sqlite:///{tmp_path / 'monitoring.db'}", tmp_path) as service:
        yield service


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example", "Content-Type": "text/plain"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:8003"}, 421),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 421),
    ],
)
async def test_no_web_page_of_somebody_else_reaches_it(
    service: Watching, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = await service.client.request(method, path, headers=headers, content=b"{}")
    assert answer.status_code == status
    assert (await service.client.get("/reports/logs")).json() == []
