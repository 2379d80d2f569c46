"""`/docs` and `/openapi.json`: Swagger UI with every file served by us, under a strict content security policy.

The files of Swagger UI (Apache-2.0) come with the package `fastapi-offline` (MIT), of which nothing else is used.
"""

import asyncio
import html
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from foretell.kit.asgi import JSON, Headers, Receive, Scope, Send, respond
from foretell.kit.errors import Misconfigured

#: The paths of `Documentation`, as templates for the request log.
PATHS = ("/docs", "/docs/{file}", "/openapi.json")
_FILES = {
    "swagger-ui.css": b"text/css; charset=utf-8",
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    "favicon.png": b"image/png",
}
_CACHED = (b"cache-control", b"public, max-age=86400")
_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
)
#: The path prefix that a proxy has removed. If a client sends it itself, it only changes its own answer.
_PREFIX_HEADER = b"x-forwarded-prefix"
_is_prefix = re.compile(rb"(/[A-Za-z0-9._~-]{1,64}){1,8}").fullmatch

# A separate script, because the policy allows no inline script. Addresses are relative to /docs, so the
# page also works behind a proxy with a path prefix.
_START = b"""\
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  layout: "BaseLayout",
  deepLinking: true,
  showExtensions: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
// Swagger UI gives every field of the Authorize dialog `autofocus`. The last field gets the focus, so the dialog would
// open scrolled to its end.
let dialog = null;
new MutationObserver(() => {
  const shown = document.querySelector(".modal-ux-content");
  if (shown && shown !== dialog) {
    shown.querySelector("input, button")?.focus();
    shown.scrollTop = 0;
  }
  dialog = shown;
}).observe(document.getElementById("swagger-ui"), { childList: true, subtree: true });
"""

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""


def with_prefix(document: dict[str, Any], headers: Headers) -> dict[str, Any]:
    """The document with the server prefix that a proxy has removed (`X-Forwarded-Prefix`), or unchanged."""
    prefix = next((value for name, value in headers if name == _PREFIX_HEADER), b"")
    return {**document, "servers": [{"url": prefix.decode("ascii")}]} if _is_prefix(prefix) else document


class Documentation:
    """`/docs`, its files, and `/openapi.json`, as a plain ASGI app. `openapi` makes the document, at first use."""

    def __init__(self, title: str, openapi: Callable[[], dict[str, Any]]) -> None:
        self._page = _PAGE.format(title=html.escape(title)).encode()
        self._openapi = openapi
        self._document: dict[str, Any] | None = None
        self._folder = _folder_of_files()

    def handles(self, path: str) -> bool:
        """Whether a request for `path` belongs here."""
        return path == "/docs" or path == "/openapi.json" or path.startswith("/docs/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        name = path.removeprefix("/docs/")
        if scope["method"] not in ("GET", "HEAD"):
            await respond(send, 405, b'{"detail":"Only GET."}', b"application/problem+json", [(b"allow", b"GET, HEAD")])
        elif path == "/openapi.json":
            if self._document is None:
                # That of the app takes hundreds of milliseconds, in which others must not wait.
                self._document = await asyncio.to_thread(self._openapi)
            document = msgspec.json.encode(with_prefix(self._document, scope["headers"]))
            await respond(send, 200, document, JSON)
        elif path == "/docs":
            await respond(send, 200, self._page, b"text/html; charset=utf-8", [_POLICY])
        elif name == "start.js":
            await respond(send, 200, _START, b"text/javascript; charset=utf-8", [_CACHED])
        elif name in _FILES:
            content = await asyncio.to_thread((self._folder / name).read_bytes)
            await respond(send, 200, content, _FILES[name], [_CACHED])
        else:
            await respond(send, 404, b'{"detail":"There is nothing here."}', b"application/problem+json")


def _folder_of_files() -> Path:
    package = find_spec("fastapi_offline")
    for folder in package.submodule_search_locations or () if package else ():
        if (Path(folder) / "static" / "swagger-ui-bundle.js").is_file():
            return Path(folder) / "static"
    raise Misconfigured("The files of Swagger UI are missing. Install the package fastapi-offline.")
