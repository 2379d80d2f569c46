"""`POST /predictions/predict`: the hot route, as plain ASGI.

A FastAPI route with pydantic models would halve the throughput of the whole path. So this route parses with msgspec and
answers without ASGI where it can (`kit/direct.py`). Its errors are the same problems as those of every other route.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from hashlib import blake2b
from typing import Annotated, NamedTuple
from uuid import UUID

import msgspec

from foretell.contracts import spans
from foretell.contracts.http import Prediction
from foretell.contracts.messages import Finished, Stage
from foretell.domain.accounts.identity import Identity
from foretell.domain.errors import ChatMayNot
from foretell.domain.predictions import history
from foretell.domain.predictions.intake import Receipt
from foretell.domain.predictions.presentation import prediction_of, timings
from foretell.domain.predictions.store import Submission
from foretell.kit import deadline, tracing
from foretell.kit.asgi import JSON, Body
from foretell.kit.batching import Batcher
from foretell.kit.clock import now, uuid7
from foretell.kit.database import Database
from foretell.kit.errors import ForetellError, MayBeDone, Unavailable
from foretell.kit.misfits import misfit_of
from foretell.kit.problems import InvalidRequest, MalformedBody, pointer
from foretell.kit.routing import Answer, HotRoute, Request, answered, bytes_answer
from foretell.services.app.authentication import Authenticator, token_of
from foretell.services.app.checked_urls import CheckedUrls
from foretell.services.app.offers import Offers
from foretell.services.app.publishing import Publishing
from foretell.services.app.waiting import Waiting

PATH = "/predictions/predict"

#: The longest time that `Prefer: wait` waits.
_LONGEST_WAIT_S = 60.0
_LONGEST_KEY = 255


class Notify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The receiver of the event of this prediction's end."""

    webhook: str


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of the request."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    #: An empty one is refused: it is more likely a variable that was not set than a request for the default version.
    version: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    features: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    notify: Notify | None = None


_NULL = msgspec.Raw(b"null")
_decode_order = msgspec.json.Decoder(Order).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="deterministic").encode
_encode_answer = msgspec.json.Encoder().encode


class Reply(NamedTuple):
    """Status, body and headers of a response."""

    status: int
    answer: Prediction
    headers: list[tuple[bytes, bytes]]

    def ended(self, finished: Finished | None) -> "Reply":
        """This reply with the end of its prediction, if it ended in time."""
        if finished is None:
            return self
        answer = msgspec.structs.replace(
            self.answer,
            status=finished.status,
            published_at=finished.published_at,
            started_at=finished.started_at,
            finished_at=finished.finished_at,
            worker_id=finished.worker_id,
            output=finished.output or None,
            error=finished.error,
            timings=timings(self.answer.created_at, finished.started_at, finished.finished_at),
        )
        return Reply(200, answer, [*self.headers, (b"preference-applied", b"wait")])


class UnknownModel(ForetellError):
    """There is no model {model}. GET /models lists those there are."""

    code = "model_not_found"
    status = 404


class Submit:
    """The route. It has no state except its collaborators."""

    def __init__(
        self,
        *,
        offers: Offers,
        authenticator: Authenticator,
        intake: Batcher[Submission, Receipt],
        publishing: Publishing,
        waiting: Waiting,
        database: Database,
        stopping: asyncio.Event,
        patience_s: float,
        allowed_s: float,
        max_body_bytes: int,
        expires_after_s: float,
        checked_urls: CheckedUrls,
    ) -> None:
        """Authentication and the wait for the intake may take `patience_s` together.

        After `allowed_s` nothing more is read from the database. A prediction expires after `expires_after_s`.
        """
        self._checked_urls = checked_urls
        self._offers = offers
        self._authenticator = authenticator
        self._intake = intake
        self._publishing = publishing
        self._waiting = waiting
        self._database = database
        self._stopping = stopping
        self._patience_s = patience_s
        self._allowed_s = allowed_s
        self._max_body_bytes = max_body_bytes
        self._expires_after = timedelta(seconds=expires_after_s)

    @property
    def route(self) -> HotRoute:
        """The hot route; errors become problem responses."""

        async def answer(request: Request) -> Answer:
            return await answered(self._answer, request, PATH)

        return HotRoute(PATH, answer, self._max_body_bytes)

    async def _answer(self, request: Request) -> Answer:
        headers = dict(request.headers)
        token = token_of(request.headers, "POST")
        identity, looked_up_s = self._authenticator.identify_cached(token), 0.0
        if identity is None:
            identity, looked_up_s = await self._look_up(token)
        body = await request.body()
        submission = self._check(identity, body, _idempotency_key(headers))
        if submission.webhook is not None:
            if identity.chat is not None:
                # The webhook would get events, and keep its secret, after the chat is unlinked.
                raise ChatMayNot
            await self._checked_urls.check(submission.webhook, pointer("notify", "webhook"))
        # The start of the wait for the database: authentication counts, the time to receive the body does not.
        since = asyncio.get_running_loop().time() - looked_up_s
        wait_s = _wait_s(headers.get(b"prefer"))
        if wait_s:
            # Free the body during the wait.
            del body
            reply = await self._submit_and_wait(submission, since, wait_s, request.let_go)
        else:
            reply = await self._submit(submission, since)
        request.line = {"prediction_id": reply.answer.id}
        return bytes_answer(_encode_answer(reply.answer), JSON, reply.status, reply.headers)

    async def _look_up(self, token: str) -> tuple[Identity, float]:
        """The identity of `token`, and how many seconds the lookup took."""
        began = asyncio.get_running_loop().time()
        with deadline.allowed(self._patience_s):
            identity = await self._authenticator.identify(token)
        return identity, asyncio.get_running_loop().time() - began

    def _check(self, identity: Identity, body: Body, key: str | None) -> Submission:
        """The submission of this body. Raises errors that name the field."""
        try:
            order = _decode_order(body)
        except msgspec.ValidationError as error:
            raise InvalidRequest([misfit_of(error).problem]) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise MalformedBody from None
        stage: Stage
        # Some clients send null for an absent field.
        if isinstance(order.features, msgspec.Raw) and (order.input is msgspec.UNSET or order.input == _NULL):
            stage, raw = "features", order.features
        elif isinstance(order.input, msgspec.Raw) and (order.features is msgspec.UNSET or order.features == _NULL):
            stage, raw = "input", order.input
        else:
            detail = "Give either `input` (raw fields) or `features` (which skips preprocessing)."
            raise InvalidRequest([{"detail": detail, "pointer": pointer()}])
        offer = self._offers.get(order.model, order.version)
        if offer is None:
            raise UnknownModel(model=f"{order.model} {order.version}" if order.version else order.model)
        payload = bytes(raw)
        try:
            value = _decode_any(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise MalformedBody from None
        package = offer.package
        validator = package.validator(stage)
        if not validator.is_valid(value) or _has_nul(payload):
            raise InvalidRequest(_problems(validator.problems(value), stage))
        moment = now()
        webhook = None if order.notify is None else order.notify.webhook
        request_hash = None
        if key is not None:
            # Hash the value as re-encoded: a request that differs only in white space or field order is the same.
            words = [package.name.encode(), (order.version or "").encode(), stage.encode(), _encode(value)]
            if webhook is not None:
                words.append(webhook.encode())
            request_hash = blake2b(b"\0".join(words), digest_size=16).digest()
        return Submission(
            id=uuid7(),
            user_id=identity.user_id,
            model=package.name,
            version=package.version,
            pool=package.queue,
            stage=stage,
            payload=payload,
            price_credits=offer.price_credits,
            created_at=moment,
            expires_at=moment + self._expires_after,
            idempotency_key=key,
            request_hash=request_hash,
            webhook=webhook,
        )

    async def _submit(self, submission: Submission, since: float) -> Reply:
        def about() -> spans.About:
            return spans.of_prediction(submission.id, submission.model, submission.version)

        with tracing.Step(spans.INTAKE, "internal", about):
            receipt = await self._intake.submit(submission, since=since)
        if receipt.replayed:
            return await self._repeat(submission.user_id, receipt.id, since)
        self._publishing.publish_soon(submission)
        return Reply(202, _accepted(submission), [_location(submission.id)])

    async def _submit_and_wait(
        self, submission: Submission, since: float, wait_s: float, accepted: Callable[[], None]
    ) -> Reply:
        # Watch before submitting, so that the event of the end can't be missed.
        async with self._waiting.watch(submission.id) as ended:
            reply = await self._submit(submission, since)
            accepted()
            if reply.answer.id == submission.id:
                return reply.ended(await self._wait(ended, wait_s))
        earlier_id = reply.answer.id
        async with self._waiting.watch(earlier_id) as ended:
            reply = await self._repeat(submission.user_id, earlier_id, since)
            return reply if reply.answer.finished_at else reply.ended(await self._wait(ended, wait_s))

    async def _repeat(self, user_id: UUID, prediction_id: UUID, since: float) -> Reply:
        """The prediction of an earlier request with the same idempotency key."""
        left_s = since + self._allowed_s - asyncio.get_running_loop().time()
        try:
            with deadline.allowed(left_s):
                async with self._database.snapshot() as connection:
                    view = await history.find(connection, user_id, prediction_id)
        except Unavailable as error:
            # This request did nothing, but an earlier one may have succeeded.
            raise MayBeDone(part="database") from error
        answer = prediction_of(view)
        replayed = (b"idempotency-replayed", b"true")
        return Reply(200 if view.finished_at else 202, answer, [_location(view.id), replayed])

    async def _wait(self, ended: "asyncio.Future[Finished]", wait_s: float) -> Finished | None:
        """The end of the prediction; None after `wait_s` or when the process stops, and the client then gets 202."""
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((ended, stop), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        return ended.result() if ended.done() else None


def _accepted(submission: Submission) -> Prediction:
    return Prediction(
        id=submission.id,
        status="queued",
        model=submission.model,
        version=submission.version,
        price=submission.price_credits,
        created_at=submission.created_at,
        expires_at=submission.expires_at,
    )


def _location(prediction_id: UUID) -> tuple[bytes, bytes]:
    return (b"location", b"/predictions/%s" % str(prediction_id).encode())


#: The escape of NUL, unless its backslash is itself escaped.
_find_nul = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000").search


def _has_nul(payload: bytes) -> bool:
    # The substring search is faster than the regular expression, and nearly always enough.
    return b"\\u0000" in payload and _find_nul(payload) is not None


def _problems(problems: list[tuple[str, str]], stage: Stage) -> list[dict[str, str]]:
    if not problems:
        return [{"detail": "Texts must not contain the NUL character.", "pointer": pointer(stage)}]
    return [
        {"detail": f"{field or stage} {message}", "pointer": pointer(stage, *(field.split(".") if field else ()))}
        for field, message in problems
    ]


def _idempotency_key(headers: Mapping[bytes, bytes]) -> str | None:
    raw = headers.get(b"idempotency-key")
    if raw is None:
        return None
    key = raw.decode("latin-1")
    if not key.isprintable() or not 0 < len(key) <= _LONGEST_KEY:
        detail = f"must be 1 to {_LONGEST_KEY} printable characters"
        raise InvalidRequest([{"detail": detail, "header": "Idempotency-Key"}])
    return key


def _wait_s(prefer: bytes | None) -> float:
    """The seconds of `Prefer: wait=N` (RFC 7240); 0 if it is absent or invalid."""
    if prefer is None:
        return 0.0
    for preference in prefer.decode("latin-1").lower().split(","):
        name, _, value = preference.strip().partition("=")
        if name.strip() == "wait" and value.strip().strip('"').isdecimal():
            return min(float(value.strip().strip('"')), _LONGEST_WAIT_S)
    return 0.0
