"""The page as it is served: its document everywhere below /ui, its files for ever, nothing from elsewhere."""

import gzip
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from structlog.testing import capture_logs

from foretell.services.app.page import serving

IsProblem = Callable[[httpx.Response, int, str], None]
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
SCRIPT = b"console.log('foretell')"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "built"
    (folder / "assets").mkdir(parents=True)
    (folder / "assets" / "index-abc123.js").write_bytes(SCRIPT)
    (folder / "assets" / "index-abc123.js.gz").write_bytes(gzip.compress(SCRIPT))
    (folder / "assets" / "index-abc123.js.br").write_bytes(b"in brotli")
    (folder / "icon.svg").write_bytes(b"<svg/>")
    (folder / "secret.py").write_bytes(b"no file of a page")
    (folder / "index.html").write_bytes(b"<!doctype html><title>Foretell</title>")
    return folder


@pytest.fixture
async def page(built: Path) -> AsyncIterator[httpx.AsyncClient]:
    served = serving.Page(built)
    app = Starlette(routes=[Route(path, served) for path in serving.PATHS])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://foretell") as client:
        client.headers["Accept-Encoding"] = ""
        yield client


async def test_every_address_of_the_page_gives_its_document(page: httpx.AsyncClient) -> None:
    for path in ("/", "/ui", "/ui/", "/ui/models/flight-delay", "/ui/predictions/1", "/ui/index.html", "/ui/secret.py"):
        answer = await page.get(path, headers=BROWSER)
        assert (answer.status_code, answer.text) == (200, "<!doctype html><title>Foretell</title>"), path
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
    head = await page.head("/", headers=BROWSER)
    assert (head.status_code, head.headers["content-length"]) == (200, "38")


async def test_the_policy_lets_nothing_in_that_is_not_ours(page: httpx.AsyncClient) -> None:
    headers = (await page.get("/", headers=BROWSER)).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]


async def test_files_are_kept_for_ever_and_come_as_small_as_the_browser_takes_them(page: httpx.AsyncClient) -> None:
    path = "/ui/assets/index-abc123.js"
    plain = await page.get(path)
    assert (plain.content, plain.headers["content-type"]) == (SCRIPT, "text/javascript; charset=utf-8")
    assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert plain.headers["vary"] == "accept-encoding"
    zipped = await page.get(path, headers={"Accept-Encoding": "gzip, deflate"})
    assert (zipped.content, zipped.headers["content-encoding"]) == (SCRIPT, "gzip")
    async with page.stream("GET", path, headers={"Accept-Encoding": "gzip, br;q=1.0"}) as brotli:
        assert brotli.headers["content-encoding"] == "br"
        assert b"".join([part async for part in brotli.aiter_raw()]) == b"in brotli"
    refused = await page.get(path, headers={"Accept-Encoding": "br;q=0, gzip;q=0"})
    assert "content-encoding" not in refused.headers
    tags = {answer.headers["etag"] for answer in (plain, zipped, brotli)}
    assert len(tags) == 3
    again = await page.get(path, headers={"If-None-Match": f'"other", W/{plain.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert (await page.get("/ui/icon.svg")).headers["cache-control"] == "no-cache"


async def test_a_file_that_is_missing_is_not_the_document(page: httpx.AsyncClient, is_problem: IsProblem) -> None:
    for path in ("/ui/assets/index-old.js", "/ui/assets/", "/favicon.ico", "/ui/assets/%2e%2e/secret.py"):
        is_problem(await page.get(path, headers=BROWSER), 404, "not_found")
    is_problem(await page.get("/", headers={"Accept": "application/json"}), 404, "not_found")
    answer = await page.post("/ui/models")
    is_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD"


async def test_a_new_build_counts_at_once_and_the_files_before_stay(page: httpx.AsyncClient, built: Path) -> None:
    await page.get("/", headers=BROWSER)
    (built / "assets" / "index-abc123.js").unlink()
    (built / "assets" / "index-def456.js").write_bytes(b"newer")
    (built / "index.html").write_bytes(b"<!doctype html><title>Newer</title>")
    os.utime(built / "index.html", ns=(1, 1))
    assert "Newer" in (await page.get("/", headers=BROWSER)).text
    assert (await page.get("/ui/assets/index-def456.js")).content == b"newer"
    assert (await page.get("/ui/assets/index-abc123.js")).content == SCRIPT


async def test_where_nothing_is_built_the_address_says_so(page: httpx.AsyncClient, built: Path) -> None:
    (built / "index.html").unlink()
    answer = await page.get("/", headers=BROWSER)
    assert answer.status_code == 200
    assert "not built" in answer.text
    assert "не собрана" in answer.text
    assert 'href="/docs"' in answer.text
    assert "<script" not in answer.text
    assert "content-security-policy" in answer.headers
    assert (await page.get("/ui/models", headers=BROWSER)).status_code == 404


async def test_the_app_serves_it(client: httpx.AsyncClient) -> None:
    answer = await client.get("/", headers=BROWSER)
    assert answer.status_code == 200
    assert "Foretell" in answer.text
    assert (await client.get("/ui/assets/nothing.js")).status_code == 404


@pytest.mark.parametrize("path", ["//", "///", "//ui", "//docs", "/%2F", "/%0A", "/ui%0A", "/docs%0A", "/health%0A"])
async def test_a_path_that_is_almost_one_of_ours_is_none(client: httpx.AsyncClient, path: str) -> None:
    """Were it taken for ours, what compares paths (access, limits, caches) could be passed by."""
    assert (await client.get("/", headers=BROWSER)).status_code == 200
    url = client.base_url.copy_with(raw_path=path.encode())
    answer = await client.get(url, headers=BROWSER)
    assert answer.request.url.raw_path == path.encode()
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_no_path_of_the_api_is_answered_with_a_newline_after_it(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert len(paths) > 30
    for path, operations in paths.items():
        for method in operations:
            answer = await client.request(method, path.replace("{", "").replace("}", "") + "%0A")
            assert (answer.status_code, answer.headers.get("allow")) == (404, None), f"{method} {path}"


async def test_the_log_names_the_route_of_every_known_path(client: httpx.AsyncClient) -> None:
    routes = {
        "/": "/",
        "/ui": "/ui",
        "/ui/predictions/1": "/ui/{path}",
        "/favicon.ico": "/favicon.ico",
        "/docs": "/docs",
        "/docs/start.js": "/docs/{file}",
        "/openapi.json": "/openapi.json",
        # Refused before they reach the routes.
        "/admin/users/0199aa00-0000-7000-8000-000000000000": "/admin/users/{user_id}",
        "/telegram/links/1": "/telegram/links/{chat_id}",
        "/nowhere": "unmatched",
    }
    with capture_logs() as lines:
        for path in routes:
            await client.get(path, headers=BROWSER)
    assert [line["route"] for line in lines if line["event"] == "request_finished"] == list(routes.values())
