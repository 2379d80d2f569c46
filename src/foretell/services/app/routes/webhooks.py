"""Management of an account's webhooks. The dispatcher sends the events."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from foretell.contracts import http
from foretell.domain.errors import NotFound, TooManyEndpoints, TooManyRedeliveries, TooManyRotations
from foretell.domain.notifications import endpoints
from foretell.domain.notifications.endpoints import Delivery, Endpoint
from foretell.domain.notifications.rotation import MAX_PREVIOUS
from foretell.kit.problems import InvalidRequest, pointer
from foretell.services.app.dependencies import Caller, Limit, PlainNumber, State
from foretell.services.app.openapi import problem_answers

router = APIRouter(tags=["notifications"])

_NOT_STORED = {"Cache-Control": "no-store"}
_LARGEST_ID = 2**63 - 1
_Cursor = Annotated[
    int | None, Query(ge=0, le=_LARGEST_ID, description="`next_cursor` of the page before"), PlainNumber
]

_NO_WEBHOOK, _TOO_MANY = NotFound(what="webhook"), TooManyEndpoints(limit=endpoints.MAX_WEBHOOKS)
_CHANGED_OFTEN = TooManyRotations(limit=MAX_PREVIOUS, free_at="2026-01-06T09:30:00Z")
_WAIT_ALREADY = TooManyRedeliveries(limit=endpoints.MAX_AGAIN)


@router.post(
    "/webhooks", status_code=201, summary="Make a webhook", responses=problem_answers(401, _TOO_MANY, 413, 422)
)
async def create_webhook(
    wanted: http.NewWebhook, caller: Caller, response: Response, state: State
) -> http.CreatedWebhook:
    """An address that gets all events from now on, by Standard Webhooks. Its secret is shown only once."""
    await state.checked_urls.check(wanted.url, pointer("url"))
    async with state.database.transaction() as connection:
        endpoint, secret = await endpoints.create(
            connection, caller.user_id, wanted.url, types=wanted.events, description=wanted.description or ""
        )
    response.headers.update(_NOT_STORED)
    return http.CreatedWebhook(**_webhook(endpoint).model_dump(), secret=secret)


@router.get("/webhooks", summary="My webhooks", responses=problem_answers(401))
async def list_webhooks(caller: Caller, state: State) -> http.Webhooks:
    """Oldest first, without their secrets."""
    async with state.database.snapshot() as connection:
        found = await endpoints.list_webhooks(connection, caller.user_id)
    return http.Webhooks(items=[_webhook(endpoint) for endpoint in found])


@router.post(
    "/webhooks/once/rotate",
    summary="New secret for webhooks of single predictions",
    responses=problem_answers(401, _CHANGED_OFTEN),
)
async def rotate_once_secret(caller: Caller, response: Response, state: State) -> http.WebhookSecret:
    """The secret that signs events for the webhooks of single predictions (`notify`)."""
    async with state.database.transaction() as connection:
        secret = await endpoints.rotate_once(connection, caller.user_id)
    response.headers.update(_NOT_STORED)
    return http.WebhookSecret(secret=secret)


@router.get(
    "/webhooks/once/deliveries",
    summary="Deliveries to webhooks of single predictions",
    responses=problem_answers(401, _NO_WEBHOOK, 422),
)
async def list_once_deliveries(
    caller: Caller,
    state: State,
    url: Annotated[str, Query(min_length=1, max_length=2048, description="The address, as predictions named it")],
    limit: Limit = 50,
    cursor: _Cursor = None,
) -> http.DeliveryPage:
    """Every attempt of the last 7 days to an address in `notify` of predictions, newest first.

    The attempts of one prediction are those whose `event_id` is its id.
    """
    async with state.database.snapshot() as connection:
        found = await endpoints.list_once_deliveries(connection, caller.user_id, url, limit=limit + 1, before_id=cursor)
    return _page(found, limit)


@router.get("/webhooks/{webhook_id:uuid}", summary="One webhook", responses=problem_answers(401, _NO_WEBHOOK))
async def show_webhook(webhook_id: UUID, caller: Caller, state: State) -> http.Webhook:
    """A webhook, without its secret."""
    async with state.database.snapshot() as connection:
        return _webhook(await endpoints.find(connection, caller.user_id, webhook_id))


@router.patch(
    "/webhooks/{webhook_id:uuid}", summary="Change a webhook", responses=problem_answers(401, _NO_WEBHOOK, 413, 422)
)
async def change_webhook(webhook_id: UUID, wanted: http.WebhookChange, caller: Caller, state: State) -> http.Webhook:
    """Change the address or the events, pause or resume. `enabled` also turns a disabled webhook on again."""
    if wanted.url is not None:
        await state.checked_urls.check(wanted.url, pointer("url"))
    async with state.database.transaction() as connection:
        endpoint = await endpoints.change(
            connection,
            caller.user_id,
            webhook_id,
            url=wanted.url,
            types=wanted.events,
            all_types="events" in wanted.model_fields_set and wanted.events is None,
            description=wanted.description,
            state=wanted.state,
        )
    return _webhook(endpoint)


@router.delete(
    "/webhooks/{webhook_id:uuid}",
    status_code=204,
    summary="Remove a webhook",
    responses=problem_answers(401, _NO_WEBHOOK),
)
async def remove_webhook(webhook_id: UUID, caller: Caller, state: State) -> None:
    """The webhook gets no more events, and its deliveries are deleted."""
    async with state.database.transaction() as connection:
        await endpoints.remove(connection, caller.user_id, webhook_id)


@router.post(
    "/webhooks/{webhook_id:uuid}/rotate",
    summary="New secret",
    responses=problem_answers(401, _NO_WEBHOOK, _CHANGED_OFTEN),
)
async def rotate_webhook_secret(
    webhook_id: UUID, caller: Caller, response: Response, state: State
) -> http.WebhookSecret:
    """For 24 hours events are also signed with the old secret; 409 while five replaced secrets are still in use."""
    async with state.database.transaction() as connection:
        secret = await endpoints.rotate(connection, caller.user_id, webhook_id)
    response.headers.update(_NOT_STORED)
    return http.WebhookSecret(secret=secret)


@router.post(
    "/webhooks/{webhook_id:uuid}/test",
    status_code=202,
    summary="Send a test",
    responses=problem_answers(401, _NO_WEBHOOK, _WAIT_ALREADY, 429),
)
async def test_webhook(webhook_id: UUID, caller: Caller, state: State) -> http.WebhookTest:
    """An event `webhook.test` for this webhook only, sent at once in one attempt, even if it is paused."""
    state.webhook_sends.attempt(caller.user_id)
    async with state.database.transaction() as connection:
        sequence = await endpoints.send_test(connection, caller.user_id, webhook_id)
    return http.WebhookTest(sequence=sequence)


@router.get(
    "/webhooks/{webhook_id:uuid}/deliveries",
    summary="Deliveries",
    responses=problem_answers(401, _NO_WEBHOOK, 422),
)
async def list_deliveries(
    webhook_id: UUID,
    caller: Caller,
    state: State,
    limit: Limit = 50,
    cursor: _Cursor = None,
) -> http.DeliveryPage:
    """Every attempt of the last 7 days, newest first."""
    async with state.database.snapshot() as connection:
        # One more than requested, to know whether there is a next page.
        found = await endpoints.list_deliveries(
            connection, caller.user_id, webhook_id, limit=limit + 1, before_id=cursor
        )
    return _page(found, limit)


@router.post(
    "/webhooks/{webhook_id:uuid}/redeliver",
    status_code=202,
    summary="Redeliver events",
    responses=problem_answers(401, _NO_WEBHOOK, _WAIT_ALREADY, 413, 422, 429),
)
async def redeliver(webhook_id: UUID, wanted: http.Redelivery, caller: Caller, state: State) -> http.Redelivered:
    """One event, by its sequence, at once; or all events since a time, in order. Ids stay the same."""
    if (wanted.sequence is None) == (wanted.since is None):
        raise InvalidRequest([{"detail": "Give either `sequence` or `since`.", "pointer": pointer()}])
    state.webhook_sends.attempt(caller.user_id)
    async with state.database.transaction() as connection:
        if wanted.since is not None:
            count = await endpoints.redeliver_since(connection, caller.user_id, webhook_id, wanted.since)
        else:
            assert wanted.sequence is not None
            await endpoints.redeliver_one(connection, caller.user_id, webhook_id, wanted.sequence)
            count = 1
    return http.Redelivered(events=count)


def _page(found: Sequence[Delivery], limit: int) -> http.DeliveryPage:
    shown = found[:limit]
    return http.DeliveryPage(
        items=[http.Delivery.model_validate(delivery) for delivery in shown],
        next_cursor=str(shown[-1].id) if len(found) > limit else None,
    )


def _webhook(endpoint: Endpoint) -> http.Webhook:
    return http.Webhook(
        id=endpoint.id,
        url=endpoint.url,
        events=None if endpoint.types is None else list(endpoint.types),
        description=endpoint.description,
        state=endpoint.state,
        disabled_reason=endpoint.disabled_reason,  # type: ignore[arg-type]
        failing_since=endpoint.failing_since,
        waiting=endpoint.waiting,
        next_attempt_at=endpoint.due_at,
        created_at=endpoint.created_at,
    )
