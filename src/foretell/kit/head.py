"""HEAD for all GET routes, for frameworks that treat it as a separate method."""

import asyncio
from contextlib import suppress

from foretell.kit.asgi import Application, Message, Receive, Scope, Send

#: Key in the scope: the real method, if the route is looked up with another one.
ASKED_METHOD = "foretell.asked_method"
#: Keys that a framework sets in the scope, and that the request log reads.
_NOTED = ("route", "path_params")


async def answer_head(app: Application, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a HEAD request as `app` answers GET, without the body; does not wait for the end of a stream."""
    answered = asyncio.Event()

    async def send_head(message: Message) -> None:
        if answered.is_set():
            return
        if message["type"] == "http.response.start":
            await send(message)
        else:
            await send({"type": "http.response.body", "body": b""})
            answered.set()

    asked = {**scope, "method": "GET", ASKED_METHOD: "HEAD"}
    answering = asyncio.ensure_future(app(asked, receive, send_head))
    waiting = asyncio.ensure_future(answered.wait())
    try:
        await asyncio.wait((answering, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        if not answering.done():
            answering.cancel()
        scope.update((name, asked[name]) for name in _NOTED if name in asked)
    with suppress(asyncio.CancelledError):
        await answering
