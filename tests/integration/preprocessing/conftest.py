"""The preprocessing service in this process, with the packages that ship."""

from collections.abc import AsyncIterator

import httpx
import pytest

from foretell.inference.registry import Registry, shipped_folder
from foretell.services.preprocessing.app import build
from foretell.services.preprocessing.preprocessors import Preprocessors
from foretell.services.preprocessing.settings import PreprocessingSettings


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    settings = PreprocessingSettings(max_rows=2000, max_body_bytes=1024 * 1024)
    app = build(Preprocessors(Registry.discover(shipped_folder())), settings, "preprocessing-1")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://preprocessing") as client:
        yield client
