"""`POST /predictions/predict`: the hot route, as plain ASGI.

A FastAPI route with pydantic models would halve the speed of the whole path, so this one parses with msgspec and
answers by itself, past ASGI where it can (`kit/direct.py`). What it refuses, it refuses with the same problems as every
other route.
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
from foretell.kit.tracing import TraceContext
from foretell.services.app.authentication import Authenticator, token_of
from foretell.services.app.checked_urls import CheckedUrls
from foretell.services.app.offers import Offers
from foretell.services.app.publishing import Publishing
from foretell.services.app.waiting import Waiting

PATH = "/predictions/predict"

#: The longest that `Prefer: wait` waits, whatever it asks for.
_LONGEST_WAIT_S = 60.0
_LONGEST_KEY = 255


class Notify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the end of this prediction is to be told."""

    webhook: str


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of the request."""

    model: str
    #: An empty one is a mistake (a variable that was never set), not a wish for the default version.
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
    """Status, body and headers of an answer."""

    status: int
    answer: Prediction
    headers: list[tuple[bytes, bytes]]

    def ended(self, finished: Finished | None) -> "Reply":
        """This reply with the end of its prediction, if that came in time."""
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
    """The route. Holds no state of its own beside what it was given."""

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
        """What the route asks and hands on to.

        To look up who asks and to wait for the intake may take `patience_s` together; after `allowed_s` nothing more is
        looked up. `expires_after_s` is how long a prediction may wait.
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
        """The route, which explains what it refuses."""

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
                # The address would be told, and keep its secret, after the chat was unlinked.
                raise ChatMayNot
            await self._checked_urls.check(submission.webhook, pointer("notify", "webhook"))
        # Since when the database has kept us waiting, first for one thing and then for another; not for the body.
        since = asyncio.get_running_loop().time() - looked_up_s
        wait_s = _wait_s(headers.get(b"prefer"))
        if wait_s:
            # Not held here either while we wait.
            del body
            reply = await self._submit_and_wait(submission, since, wait_s, request.let_go)
        else:
            reply = await self._submit(submission, since)
        request.line = {"prediction_id": reply.answer.id}
        return bytes_answer(_encode_answer(reply.answer), JSON, reply.status, reply.headers)

    async def _look_up(self, token: str) -> tuple[Identity, float]:
        """Who `token` proves to be, and how many seconds that took."""
        began = asyncio.get_running_loop().time()
        with deadline.allowed(self._patience_s):
            identity = await self._authenticator.identify(token)
        return identity, asyncio.get_running_loop().time() - began

    def _check(self, identity: Identity, body: Body, key: str | None) -> Submission:
        """The submission that the body asks for. Raises what is wrong with it, naming the field."""
        try:
            order = _decode_order(body)
        except msgspec.ValidationError as error:
            raise InvalidRequest([misfit_of(error).problem]) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise MalformedBody from None
        stage: Stage
        # null is how some clients write what they leave out.
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
        if not validator.is_valid(value) or _says_nul(payload):
            raise InvalidRequest(_problems(validator.problems(value), stage))
        moment = now()
        webhook = None if order.notify is None else order.notify.webhook
        request_hash = None
        if key is not None:
            # The same value in other words (white space, order of fields) is the same request.
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
        trace = tracing.current()
        if trace is None:
            receipt = await self._intake.submit(submission, since=since)
        else:
            receipt = await self._traced_intake(submission, since, trace)
        if receipt.replayed:
            return await self._repeat(submission.user_id, receipt.id, since)
        self._publishing.publish_soon(submission)
        return Reply(202, _accepted(submission), [_location(submission.id)])

    async def _traced_intake(self, submission: Submission, since: float, trace: TraceContext) -> Receipt:
        about = spans.of_prediction(submission.id, submission.model, submission.version)
        span = tracing.begin(spans.INTAKE, "internal", trace, about)
        error = "canceled"
        try:
            receipt = await self._intake.submit(submission, since=since)
            error = ""
        except ForetellError as refusal:
            error = refusal.code
            raise
        finally:
            span.end(error=error)
        return receipt

    async def _submit_and_wait(
        self, submission: Submission, since: float, wait_s: float, accepted: Callable[[], None]
    ) -> Reply:
        # We watch before we submit, and so the event of its end can't be missed.
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
        """The prediction that was made when the key came first: what a retry after a lost answer asks for."""
        left_s = since + self._allowed_s - asyncio.get_running_loop().time()
        try:
            with deadline.allowed(left_s):
                async with self._database.snapshot() as connection:
                    view = await history.find(connection, user_id, prediction_id)
        except Unavailable as error:
            # Nothing was done now, but what was asked for was done before.
            raise MayBeDone(part="database") from error
        answer = prediction_of(view)
        replayed = (b"idempotency-replayed", b"true")
        return Reply(200 if view.finished_at else 202, answer, [_location(view.id), replayed])

    async def _wait(self, ended: "asyncio.Future[Finished]", wait_s: float) -> Finished | None:
        """The end, unless time is up or we are told to stop; then the caller gets the 202 and asks again later."""
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


#: The escape of NUL, not the six characters of it behind a backslash that is escaped itself.
_find_nul = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000").search


def _says_nul(payload: bytes) -> bool:
    # The regular expression takes longer than the look for what is nearly never there.
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
    """The seconds of `Prefer: wait=N` (RFC 7240); 0 without one, or with one that can't be read."""
    if prefer is None:
        return 0.0
    for preference in prefer.decode("latin-1").lower().split(","):
        name, _, value = preference.strip().partition("=")
        if name.strip() == "wait" and value.strip().strip('"').isdecimal():
            return min(float(value.strip().strip('"')), _LONGEST_WAIT_S)
    return 0.0
