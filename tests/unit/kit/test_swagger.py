"""`/docs` with every file from us."""

import asyncio
import re
import threading

import httpx
import pytest

from foretell.kit.swagger import Documentation


@pytest.fixture
async def client() -> httpx.AsyncClient:
    documentation = Documentation("A <title>", lambda: {"openapi": "3.1.0"})
    return httpx.AsyncClient(transport=httpx.ASGITransport(documentation), base_url="http://test")


async def test_everything_the_page_names_is_served_by_us(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "A &lt;title&gt;" in page.text
    assert "://" not in page.text
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(named) == 4
    for name in named:
        file = await client.get(f"/{name}")
        assert file.status_code == 200
        assert file.content


async def test_the_policy_allows_nothing_inline(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"<style|style=|<script>|\son\w+=", page.text)


async def test_the_document_is_served(client: httpx.AsyncClient) -> None:
    assert (await client.get("/openapi.json")).json() == {"openapi": "3.1.0"}
    assert "openapi.json" in (await client.get("/docs/start.js")).text


@pytest.mark.parametrize("path", ["/docs/", "/docs/../core.py", "/docs/redoc.standalone.js", "/docs/%2e%2e/core.py"])
async def test_nothing_else_is(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def test_it_is_only_for_reading(client: httpx.AsyncClient) -> None:
    assert (await client.post("/docs")).status_code == 405


async def test_behind_a_prefix_the_document_says_so(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json", headers={"X-Forwarded-Prefix": "/model"})).json()
    assert document == {"openapi": "3.1.0", "servers": [{"url": "/model"}]}
    # Made for whoever asked, and for nobody else.
    assert (await client.get("/openapi.json")).json() == {"openapi": "3.1.0"}


@pytest.mark.parametrize("prefix", ["model", "//elsewhere", "https://elsewhere", "/", "/a?b", "/a b", "/x" * 9])
async def test_what_is_no_prefix_is_passed_over(client: httpx.AsyncClient, prefix: str) -> None:
    assert "servers" not in (await client.get("/openapi.json", headers={"X-Forwarded-Prefix": prefix})).json()


async def test_others_go_on_while_the_document_is_made() -> None:
    others = threading.Event()
    documentation = Documentation("A title", lambda: {"others": others.wait(30)})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(documentation), base_url="http://test") as client:
        asked = asyncio.create_task(client.get("/openapi.json"))
        await asyncio.sleep(0)
        others.set()
        assert (await asked).json() == {"others": True}
