"""Who may send packages to the model service, and what is refused. That they are installed, the app's tests say."""

from pathlib import Path

import httpx
import pytest

from foretell.services.model.app import build
from foretell.services.model.models import Models
from foretell.services.model.settings import ModelSettings

from .conftest import ADMIN_TOKEN


@pytest.mark.parametrize(
    ("settings", "headers", "query", "content", "expected"),
    [
        ({}, {}, {}, b"", (401, "admin_token_needed")),
        ({"admin_token": ""}, {"Authorization": "Bearer "}, {}, b"", (403, "admin_token_not_set")),
        ({"model_uploads": False}, None, {}, b"", (403, "no_uploads")),
        ({}, None, {"install": "perhaps"}, b"", (422, "invalid_request")),
        ({"max_package_bytes": 1024}, None, {}, b"0" * 1025, (413, "body_too_large")),
        ({}, None, {"install": "true"}, b"garbage", (422, "not_a_package")),
    ],
    ids=["no token", "none set", "off", "a strange flag", "too large", "garbage"],
)
async def test_what_is_refused(
    models: Models,
    admin: dict[str, str],
    tmp_path: Path,
    settings: dict[str, object],
    headers: dict[str, str] | None,
    query: dict[str, str],
    content: bytes,
    expected: tuple[int, str],
) -> None:
    known = ModelSettings.model_validate({"admin_token": ADMIN_TOKEN, "data_dir": tmp_path, **settings})
    transport = httpx.ASGITransport(build(models, known, "model-1"))
    async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
        answer = await client.post(
            "/packages", params=query, content=content, headers=admin if headers is None else headers
        )
    assert (answer.status_code, answer.json()["code"]) == expected
    assert not (tmp_path / "models").exists()
