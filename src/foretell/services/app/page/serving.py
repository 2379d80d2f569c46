"""Serves the built page: `/` and `/ui/...` return its one document, `/ui/assets/...` its files, under a strict policy.

The build is in `built/` beside this file: `index.html`, and files whose names contain a hash of their content, each
with a `.br` and a `.gz` version. Without a build, `/` explains how to get one.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from starlette.requests import Request

from foretell.kit.asgi import Receive, Scope, Send, respond
from foretell.kit.problems import MethodNotAllowed, NothingHere
from foretell.services.app.problems import problem_response

log = structlog.get_logger()

FOLDER = Path(__file__).parent / "built"
_PREFIX = "/ui/"
_ASSETS = "/ui/assets/"
#: The paths of the document, as templates for the request log.
PATHS = ("/", "/ui", "/ui/{path:path}", "/favicon.ico")
#: Larger files are not served, since files are kept in memory.
_MAX_FILE_BYTES = 4 * 1024 * 1024

_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".mjs": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".json": b"application/json",
    ".map": b"application/json",
    ".webmanifest": b"application/manifest+json",
    ".svg": b"image/svg+xml",
    ".png": b"image/png",
    ".ico": b"image/x-icon",
    ".webp": b"image/webp",
    ".woff2": b"font/woff2",
    ".txt": b"text/plain; charset=utf-8",
}
_CODINGS = ((b"br", ".br"), (b"gzip", ".gz"))
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
_PERMISSIONS = ("camera", "microphone", "geolocation", "payment", "usb", "display-capture", "browsing-topics")
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"permissions-policy", ", ".join(f"{feature}=()" for feature in _PERMISSIONS).encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"vary", b"accept-encoding"),
]
_NOT_STORED = (b"cache-control", b"no-store")
_FOREVER = (b"cache-control", b"public, max-age=31536000, immutable")
_ASKED_AGAIN = (b"cache-control", b"no-cache")

_NOT_BUILT = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Foretell</title>
</head>
<body>
<h1>Foretell</h1>
<p>The web page is not built here. <code>python start.py --start</code> builds it; it needs Node.js, from this machine
or from the network, and says why when it can't. Everything else works without the page.</p>
<p lang="ru">Веб-страница здесь не собрана. Её собирает <code>python start.py --start</code>: нужен Node.js, с этой
машины или из сети; если не получается, запуск говорит почему. Всё остальное работает и без неё.</p>
<p><a href="/docs">API: /docs</a></p>
</body>
</html>
""".encode()


@dataclass(frozen=True, slots=True)
class _File:
    """One file, with its content by encoding; `b""` is uncompressed."""

    content_type: bytes
    #: The ETag, without quotation marks.
    tag: bytes
    bodies: Mapping[bytes, bytes]


class Page:
    """The page, as a plain ASGI app. A new build is served from the next request for the document on."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._files: dict[str, _File] = {}
        self._read_at: int | None = None

    @property
    def built(self) -> bool:
        """Whether a build exists."""
        return (self._folder / "index.html").is_file()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            refusal = problem_response(MethodNotAllowed(method=scope["method"]), Request(scope), {"Allow": "GET, HEAD"})
            await refusal(scope, receive, send)
            return
        await self._look()
        name = path.removeprefix(_PREFIX) if path.startswith(_PREFIX) else path[1:]
        file = self._files.get(name)
        if path.startswith(_ASSETS) or path == "/favicon.ico":
            if file is None:
                # Not the document: a browser would use it as the missing script of an older build.
                await problem_response(NothingHere(), Request(scope))(scope, receive, send)
                return
            await _send(scope, send, file, _FOREVER if path.startswith(_ASSETS) else _ASKED_AGAIN)
        elif file is not None and path.startswith(_PREFIX) and name != "index.html":
            await _send(scope, send, file, _ASKED_AGAIN)
        elif not _wants_html(scope):
            await problem_response(NothingHere(), Request(scope))(scope, receive, send)
        elif "index.html" in self._files:
            await _send(scope, send, self._files["index.html"], _NOT_STORED)
        else:
            status = 200 if path == "/" else 404
            await respond(send, status, _NOT_BUILT, _TYPES[".html"], [*_HEADERS, _NOT_STORED])

    async def _look(self) -> None:
        """Read the files again when the document has changed."""
        try:
            built_at = (self._folder / "index.html").stat().st_mtime_ns
        except OSError:
            self._files, self._read_at = {}, None
            return
        if built_at != self._read_at:
            # Keep the files of earlier builds for pages that are open.
            files = await asyncio.to_thread(_read, self._folder)
            assets = {name: file for name, file in self._files.items() if name.startswith("assets/")}
            self._files, self._read_at = assets | files, built_at


def _read(folder: Path) -> dict[str, _File]:
    files = {}
    for path in sorted(folder.rglob("*")):
        kind = _TYPES.get(path.suffix)
        try:
            if kind is None or not path.is_file() or path.stat().st_size > _MAX_FILE_BYTES:
                continue
            bodies = {b"": path.read_bytes()}
            for coding, suffix in _CODINGS:
                beside = path.with_name(path.name + suffix)
                if beside.is_file():
                    bodies[coding] = beside.read_bytes()
        except OSError as error:
            # A build may be under way. It writes the document last, and then all files are read again.
            log.warning("page_file_not_read", name=path.name, reason=str(error))
            continue
        tag = hashlib.sha256(bodies[b""]).hexdigest()[:24].encode()
        files[path.relative_to(folder).as_posix()] = _File(kind, tag, bodies)
    return files


async def _send(scope: Scope, send: Send, file: _File, cache: tuple[bytes, bytes]) -> None:
    coding = _best_coding(_header(scope, b"accept-encoding"), file)
    tag = b'"%b%b"' % (file.tag, b"-" + coding if coding else b"")
    headers = [*_HEADERS, cache, (b"etag", tag)]
    known = [each.strip().removeprefix(b"W/") for each in _header(scope, b"if-none-match").split(b",")]
    if tag in known:
        await send({"type": "http.response.start", "status": 304, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    if coding:
        headers.append((b"content-encoding", coding))
    await respond(send, 200, file.bodies[coding], file.content_type, headers)


def _best_coding(accepted: bytes, file: _File) -> bytes:
    wanted = {}
    for part in accepted.lower().split(b","):
        name, _, weight = part.strip().partition(b";")
        wanted[name.strip()] = weight.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return next((coding for coding, _ in _CODINGS if coding in file.bodies and wanted.get(coding)), b"")


def _wants_html(scope: Scope) -> bool:
    accepted = _header(scope, b"accept")
    return not accepted or any(kind in accepted for kind in (b"text/html", b"text/*", b"*/*"))


def _header(scope: Scope, name: bytes) -> bytes:
    return b",".join(value for key, value in scope["headers"] if key == name)
