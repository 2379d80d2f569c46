"""Exports of an account: its history as CSV, and all its data as lines of JSON.

Both are streamed page by page, each page from its own short transaction, so that a long export blocks nothing.
"""

import csv
import io
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

import msgspec

from foretell.contracts.messages import Status
from foretell.domain.accounts import api_keys, registration, sessions, telegram
from foretell.domain.credits import ledger
from foretell.domain.notifications import endpoints, events
from foretell.domain.predictions import history
from foretell.domain.predictions.history import PredictionView
from foretell.domain.predictions.pages import ALL, Span
from foretell.domain.predictions.presentation import details_of, timings
from foretell.services.app.state import AppState

_PAGE = 200
_COLUMNS = (
    *("id", "created_at", "model", "version", "status", "price", "started_at", "finished_at", "waiting_s"),
    *("running_s", "worker_id", "error_code", "error", "input", "features", "output"),
)
#: Text that a spreadsheet would run as a formula (a negative number is none).
_is_formula = re.compile(r"[\s]*[=+\-@\t\r|%]").match
_is_number = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?").fullmatch

_encode = msgspec.json.Encoder(enc_hook=str).encode


async def history_pages(
    state: AppState, user_id: UUID, *, status: Status | None = None, model: str | None = None, span: Span = ALL
) -> AsyncIterator[Sequence[PredictionView]]:
    """All matching predictions of an account with their inputs, newest first. Raises when the process stops."""
    before_id = None
    while not state.stopping.is_set():
        async with state.database.snapshot() as connection:
            views = await history.page(
                connection,
                user_id,
                limit=_PAGE,
                before_id=before_id,
                status=status,
                model=model,
                span=span,
                with_input=True,
            )
        yield views
        if len(views) < _PAGE:
            return
        before_id = views[-1].id
    # Break the connection, so that the incomplete file does not look complete.
    raise ConnectionAbortedError("the process ends")


async def table(pages: AsyncIterator[Sequence[PredictionView]]) -> AsyncIterator[bytes]:
    """These predictions as CSV (RFC 4180), in UTF-8 with a byte order mark, without formulas for spreadsheets."""
    yield b"\xef\xbb\xbf" + _lines([_COLUMNS])
    async for views in pages:
        yield _lines(_cells(view) for view in views)


def _cells(view: PredictionView) -> list[str]:
    took = timings(view.created_at, view.started_at, view.finished_at)
    asked = _text(view.input)
    values = [
        *(view.id, view.created_at, view.model, view.version, view.status, view.price_credits),
        *(view.started_at, view.finished_at, took.waiting_s, took.running_s, view.worker_id),
        *((view.error.code, view.error.message) if view.error else (None, None)),
        *((asked, None) if view.stage == "input" else (None, asked)),
        _text(view.output),
    ]
    return [safe_cell(_shown(value)) for value in values]


def _shown(value: Any) -> str:
    # A time is written as the API writes it in JSON: in UTC, with a Z.
    return "" if value is None else str(msgspec.to_builtins(value))


def _text(json: msgspec.Raw | None) -> str | None:
    return None if json is None else bytes(json).decode()


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet runs as a formula: an apostrophe in front makes it a text."""
    return "'" + text if _is_formula(text) and not _is_number(text) else text


def _lines(rows: Iterable[Sequence[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


async def everything(state: AppState, user_id: UUID) -> AsyncIterator[bytes]:
    """All data of an account without secrets, one JSON object a line, with its kind in `record`."""
    async with state.database.snapshot() as connection:
        user = await registration.find_user_by_id(connection, user_id)
        balance = await ledger.balance(connection, user_id)
        threshold = await events.threshold(connection, user_id)
        keys = await api_keys.list_keys(connection, user_id)
        browsers = await sessions.list_sessions(connection, user_id)
        hooks = await endpoints.list_webhooks(connection, user_id)
        chats = await telegram.chats_of(connection, user_id)
    yield _line("account", asdict(user))
    yield _line("balance", asdict(balance) | {"threshold": threshold})
    for record, things in (("api_key", keys), ("session", browsers), ("webhook", hooks), ("telegram_chat", chats)):
        for thing in things:
            yield _line(record, asdict(thing))
    async for views in history_pages(state, user_id):
        yield b"".join(_line("prediction", msgspec.structs.asdict(details_of(view))) for view in views)
    before_id = None
    while not state.stopping.is_set():
        async with state.database.snapshot() as connection:
            movements = await ledger.movements(connection, user_id, limit=_PAGE, before_id=before_id)
        yield b"".join(_line("transaction", asdict(movement)) for movement in movements)
        if len(movements) < _PAGE:
            # The last line shows that the export is complete.
            yield _line("end", {})
            return
        before_id = movements[-1].id
    raise ConnectionAbortedError("the process ends")


def _line(record: str, thing: dict[str, Any]) -> bytes:
    return _encode({"record": record, **thing}).replace(b"\n", b" ") + b"\n"
