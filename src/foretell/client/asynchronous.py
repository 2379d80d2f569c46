"""The client for programs that run an event loop: the bot, say. The same as `blocking`, awaited."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

from foretell.client import calls
from foretell.client.answers import NotEnded, succeeded
from foretell.client.asynchronous_connection import AsyncConnection
from foretell.client.calls import Moment
from foretell.client.connection import looking_pauses_s
from foretell.client.types import (
    About,
    ApiKey,
    Balance,
    CreatedApiKey,
    CreatedWebhook,
    Delivery,
    DeliveryPage,
    Event,
    EventPage,
    Model,
    Prediction,
    PredictionDetails,
    PredictionPage,
    Transaction,
    TransactionPage,
    UsageOfDay,
    User,
    Webhook,
)

#: How many items an iterator asks for at once: the most that the API gives.
_PAGE = 200


class AsyncClient(AsyncConnection):
    """One Foretell, asked as one user. For one event loop.

        async with AsyncClient("http://localhost:8000", token="ftl_…") as client:
            prediction = await client.predict("sentiment", {"text": "Lovely"})
            print(prediction["output"], prediction["price"])

    An answer is the API's JSON as a typed mapping (`foretell.client.types`). Times are texts in ISO 8601 (UTC), credits
    are whole numbers, and names that end with `_s` are seconds.

    Every method may raise `ApiError` (the API refuses: `status_code`, `problem_code`, `message`, `errors`),
    `Unreachable` (nobody answers) and `InvalidCall` (what was given can't be sent). What the API turns away with 429 or
    503, and what got no answer and may be repeated, is tried again for `retry_for_s` seconds, a prediction always with
    the same Idempotency-Key. `ApiError.outcome` says of a call that failed whether it may have been done.
    """

    # What there is

    async def about(self) -> About:
        """What this installation is: version, environment, whether one can register."""
        return await self._send(calls.about())

    async def models(self) -> list[Model]:
        """Every model, with price, schemas and examples."""
        models: list[Model] = (await self._send(calls.models()))["items"]
        return models

    async def model(self, name: str, version: str | None = None) -> Model:
        """One model; without `version`, the default one. Raises `ApiError` with status 404."""
        return await self._send(calls.model(name, version))

    # Predictions

    async def predict(
        self,
        model: str,
        input: Mapping[str, Any] | None = None,
        *,
        features: Mapping[str, Any] | None = None,
        version: str | None = None,
        idempotency_key: str | None = None,
        timeout_s: float = 60.0,
        webhook: str | None = None,
        traceparent: str | None = None,
    ) -> Prediction:
        """Ask for a prediction, wait for its end, and return it once it succeeded.

            prediction = await client.predict("sentiment", {"text": "Lovely"})
            prediction["output"]                        # {"label": "positive", …}

        `input` is what a form would take, `features` in its place what the model takes. Raises `PredictionFailed`,
        which says why and costs nothing; `NotEnded` after `timeout_s` seconds, while it goes on (`wait`); `ApiError`
        with status 402 without enough credits, 404 for an unknown model, 422 for an input that does not fit.
        With the same `idempotency_key` a request that is sent again, by another
        process even, is the same prediction. `webhook` and `traceparent` are as in `submit`.
        """
        deadline = time.monotonic() + calls.seconds("timeout_s", timeout_s, above_zero=True)
        prediction = await self.submit(
            model,
            input,
            features=features,
            version=version,
            idempotency_key=idempotency_key,
            wait_s=timeout_s,
            webhook=webhook,
            traceparent=traceparent,
        )
        if prediction["status"] == "queued":
            return await self._wait(prediction["id"], deadline, timeout_s)
        return succeeded(prediction)

    async def submit(
        self,
        model: str,
        input: Mapping[str, Any] | None = None,
        *,
        features: Mapping[str, Any] | None = None,
        version: str | None = None,
        idempotency_key: str | None = None,
        wait_s: float = 0,
        webhook: str | None = None,
        traceparent: str | None = None,
    ) -> Prediction:
        """Ask for a prediction and return it as it stands: queued, or ended if that happens within `wait_s` seconds.

        `wait_s` is 60 at most. `webhook` is an address that is told of the end. `traceparent` (W3C) makes it part of a
        trace. The rest is as in `predict`, but one that failed is returned, too.
        """
        return await self._send(
            calls.submit(
                model,
                input=input,
                features=features,
                version=version,
                idempotency_key=idempotency_key,
                wait_s=wait_s,
                webhook=webhook,
                traceparent=traceparent,
            )
        )

    async def wait(self, prediction_id: str, *, timeout_s: float = 60.0) -> PredictionDetails:
        """The prediction once it succeeded. Raises `PredictionFailed`; `NotEnded` after `timeout_s` seconds."""
        deadline = time.monotonic() + calls.seconds("timeout_s", timeout_s, above_zero=True)
        return await self._wait(prediction_id, deadline, timeout_s)

    async def _wait(self, prediction_id: str, deadline: float, timeout_s: float) -> PredictionDetails:
        for pause_s in looking_pauses_s():
            prediction = await self.prediction(prediction_id)
            if prediction["status"] != "queued":
                return succeeded(prediction)
            if time.monotonic() + pause_s > deadline:
                break
            await self._sleep(pause_s)
        raise NotEnded(id=prediction_id, timeout_s=timeout_s)

    async def prediction(self, prediction_id: str) -> PredictionDetails:
        """One prediction as it stands, however it ended. Raises `ApiError` with status 404."""
        return await self._send(calls.prediction(prediction_id))

    async def cancel(self, prediction_id: str) -> Prediction:
        """Take a queued prediction back; its credits come back. Raises `ApiError` with status 409 once it has ended."""
        return await self._send(calls.cancel(prediction_id))

    async def predictions(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        status: str | None = None,
        model: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> PredictionPage:
        """A page of the history, newest first: `limit` predictions (20; 200 at most) behind `cursor`."""
        return await self._send(calls.predictions(limit, cursor, status, model, since, until))

    def iter_predictions(
        self,
        *,
        status: str | None = None,
        model: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> AsyncIterator[Prediction]:
        """The whole history, newest first; pages are asked for as they are needed.

            async for prediction in client.iter_predictions(model="sentiment", status="failed"):
                print(prediction["id"], prediction["error"])

        `since` (or later) and `until` (before) are of their making: aware datetimes, or texts in ISO 8601.
        """
        return self._pages(
            lambda cursor: calls.predictions(_PAGE, cursor, status=status, model=model, since=since, until=until)
        )

    # Credits

    async def me(self) -> User:
        """Whose account it is."""
        return await self._send(calls.me())

    async def balance(self) -> Balance:
        """Credits: `available`, and `held` by predictions that have not ended."""
        return await self._send(calls.balance())

    async def set_low_balance(self, threshold: int | None) -> Balance:
        """Have the event `balance.low` told when fewer credits than `threshold` are left; None: never."""
        return await self._send(calls.set_low_balance(threshold))

    async def transactions(self, *, limit: int | None = None, cursor: str | None = None) -> TransactionPage:
        """A page of movements of credits, newest first: `limit` of them (50; 200 at most) behind `cursor`."""
        return await self._send(calls.transactions(limit, cursor))

    def iter_transactions(self) -> AsyncIterator[Transaction]:
        """Every movement of credits, newest first; pages are asked for as they are needed."""
        return self._pages(partial(calls.transactions, _PAGE))

    async def usage(self, days: int = 30) -> list[UsageOfDay]:
        """What was used on each of the last `days` days (UTC) by each model. Some seconds behind."""
        usage: list[UsageOfDay] = (await self._send(calls.usage(days)))["items"]
        return usage

    # API keys

    async def create_api_key(self, name: str) -> CreatedApiKey:
        """A new key; its `key` is shown this once. Raises `ApiError` with status 409 for an account that has 50."""
        return await self._send(calls.create_api_key(name))

    async def api_keys(self) -> list[ApiKey]:
        """The keys, without what is secret of them."""
        keys: list[ApiKey] = (await self._send(calls.api_keys()))["items"]
        return keys

    async def revoke_api_key(self, key_id: str) -> None:
        """End a key. Raises `ApiError` with status 404 if there is none with that id."""
        await self._send(calls.revoke_api_key(key_id))

    # Events

    async def events(self, after: str | int | None = None, *, limit: int | None = None) -> EventPage:
        """A page of events, oldest first: `limit` of them (200 at most) behind the cursor or sequence `after`."""
        return await self._send(calls.events(after, limit))

    def iter_events(self, after: str | int | None = None) -> AsyncIterator[Event]:
        """Everything that happened since the event with the sequence `after`, until now; without it, for 7 days.

        async for event in client.iter_events(after=last):
            last = event["sequence"]
        """
        return self._pages(lambda cursor: calls.events(cursor, _PAGE), None if after is None else str(after))

    def follow_events(self, after: str | int | None = None) -> AsyncIterator[Event]:
        """Events as they happen, for as long as one likes; without `after`, from now on.

            async for event in client.follow_events(after=last):
                last = event["sequence"]
                print(event["type"], event["data"])

        A connection that breaks is made anew and goes on behind the last event, so that nothing is missed. Raises
        `Unreachable` once nobody answers for `retry_for_s` seconds: begin again with `after`, the `sequence` of the
        last event; and `ApiError` with status 401 when the account may not be asked any more.
        """
        return self._follow(after)

    # Webhooks

    async def webhooks(self) -> list[Webhook]:
        """The webhooks of the account."""
        webhooks: list[Webhook] = (await self._send(calls.webhooks()))["items"]
        return webhooks

    async def webhook(self, webhook_id: str) -> Webhook:
        """One webhook. Raises `ApiError` with status 404, as all that take an id do."""
        return await self._send(calls.webhook(webhook_id))

    async def create_webhook(
        self, url: str, *, events: Sequence[str] | None = None, description: str = ""
    ) -> CreatedWebhook:
        """A new webhook, told the types in `events`, or all; its `secret` is shown this once.

        The package `standardwebhooks` verifies with it what is sent. Raises `ApiError` with status 422 for an
        address that is not allowed.
        """
        return await self._send(calls.create_webhook(url, events, description))

    async def change_webhook(self, webhook_id: str, **changes: Any) -> Webhook:
        """Change `url`, `events`, `description` or `state` ("enabled", "paused")."""
        return await self._send(calls.change_webhook(webhook_id, changes))

    async def remove_webhook(self, webhook_id: str) -> None:
        """Tell this one nothing any more."""
        await self._send(calls.remove_webhook(webhook_id))

    async def rotate_webhook(self, webhook_id: str) -> str:
        """A new secret, shown this once; the one before signs along for 24 hours. `once`: of single predictions."""
        return str((await self._send(calls.rotate_webhook(webhook_id)))["secret"])

    async def test_webhook(self, webhook_id: str) -> int:
        """Send a test; returns its sequence, by which it is found in the deliveries."""
        return int((await self._send(calls.test_webhook(webhook_id)))["sequence"])

    async def deliveries(
        self, webhook_id: str, *, url: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> DeliveryPage:
        """A page of attempts, newest first; with `once` as the id, those at the `url` that single predictions named."""
        return await self._send(calls.deliveries(webhook_id, url, limit, cursor))

    def iter_deliveries(self, webhook_id: str, *, url: str | None = None) -> AsyncIterator[Delivery]:
        """Every attempt of the last 7 days, newest first; arguments as for `deliveries`."""
        return self._pages(partial(calls.deliveries, webhook_id, url, _PAGE))

    async def redeliver(self, webhook_id: str, *, sequence: int | None = None, since: Moment | None = None) -> int:
        """Send the event `sequence` once more, or everything `since` a moment; returns how many events."""
        return int((await self._send(calls.redeliver(webhook_id, sequence, since)))["events"])
