"""The model service in this process, with the packages that ship and loaded models."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from foretell.inference.live import LiveRegistry
from foretell.services.model.app import build
from foretell.services.model.models import Models
from foretell.services.model.settings import ModelSettings

ADMIN_TOKEN = "a token that is long enough"


@pytest.fixture
async def models(tmp_path: Path) -> Models:
    models = Models(LiveRegistry.installed(None, tmp_path))
    await models.load("flight-delay")
    models.all_tried = True
    return models


@pytest.fixture
async def client(models: Models) -> AsyncIterator[httpx.AsyncClient]:
    settings = ModelSettings(admin_token=ADMIN_TOKEN, max_rows=2000, max_body_bytes=1024 * 1024)
    transport = httpx.ASGITransport(build(models, settings, "model-1"))
    async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
        yield client


@pytest.fixture
def admin() -> dict[str, str]:
    """Headers of whoever may load and unload models."""
    return {"Authorization": f"Bearer {ADMIN_TOKEN}"}
