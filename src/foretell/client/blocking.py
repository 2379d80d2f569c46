"""The synchronous client, used by the command line. tests/unit/client/test_twins.py makes it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from foretell.client import calls
from foretell.client.answers import NotEnded, succeeded
from foretell.client.blocking_connection import Connection
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

#: Page size of iterators: the maximum of the API.
_PAGE = 200


class Client(Connection):
    """A client of one Foretell installation, for one user. Not for several threads at once.

        with Client("http://localhost:8000", token="ftl_…") as client:
            prediction = client.predict("sentiment", {"text": "Lovely"})
            print(prediction["output"], prediction["price"])

    Answers are the API's JSON as typed dictionaries (`foretell.client.types`). Times are texts in ISO 8601 (UTC),
    credits are whole numbers, and names that end with `_s` are seconds.

    Every method may raise `ApiError` (the API refuses: `status_code`, `problem_code`, `message`, `errors`),
    `Unreachable` (no answer) and `InvalidCall` (an argument is invalid). After a 429 or 503, or without an answer if
    repeating is harmless, a call is retried for `retry_for_s` seconds, a prediction always with the same
    Idempotency-Key. `ApiError.outcome` says whether a failed call may have taken effect.
    """

    # Models and the installation

    def about(self) -> About:
        """What this installation is: version, environment, whether users can register."""
        return self._send(calls.about())

    def models(self) -> list[Model]:
        """Every model, with price, schemas and examples."""
        models: list[Model] = (self._send(calls.models()))["items"]
        return models

    def model(self, name: str, version: str | None = None) -> Model:
        """One model; without `version`, the default one. Raises `ApiError` with status 404."""
        return self._send(calls.model(name, version))

    # Predictions

    def predict(
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
        """Request a prediction, wait for its end, and return it if it succeeded.

            prediction = client.predict("sentiment", {"text": "Lovely"})
            prediction["output"]                        # {"label": "positive", …}

        `input` has the fields of the model's form; `features`, in its place, skips preprocessing. Raises
        `PredictionFailed` with the reason (then it costs nothing); `NotEnded` after `timeout_s` seconds, while the
        prediction continues (see `wait`); `ApiError` with status 402 without enough credits, 404 for an unknown model,
        422 for an invalid input. A repeated request with the same `idempotency_key`, also from another process, is the
        same prediction. `webhook` and `traceparent` are as in `submit`.
        """
        deadline = time.monotonic() + calls.seconds("timeout_s", timeout_s, above_zero=True)
        prediction = self.submit(
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
            return self._wait(prediction["id"], deadline, timeout_s)
        return succeeded(prediction)

    def submit(
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
        """Request a prediction and return it: queued, or ended if it ends within `wait_s` seconds.

        `wait_s` is 60 at most. `webhook` is a URL that gets the event of its end. `traceparent` (W3C) makes it part of
        a trace. The rest is as in `predict`, but a failed prediction is returned and not raised.
        """
        return self._send(
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

    def wait(self, prediction_id: str, *, timeout_s: float = 60.0) -> PredictionDetails:
        """Wait until the prediction has succeeded. Raises `PredictionFailed`; `NotEnded` after `timeout_s` seconds."""
        deadline = time.monotonic() + calls.seconds("timeout_s", timeout_s, above_zero=True)
        return self._wait(prediction_id, deadline, timeout_s)

    def _wait(self, prediction_id: str, deadline: float, timeout_s: float) -> PredictionDetails:
        for pause_s in looking_pauses_s():
            prediction = self.prediction(prediction_id)
            if prediction["status"] != "queued":
                return succeeded(prediction)
            if time.monotonic() + pause_s > deadline:
                break
            self._sleep(pause_s)
        raise NotEnded(id=prediction_id, timeout_s=timeout_s)

    def prediction(self, prediction_id: str) -> PredictionDetails:
        """One prediction in its current state, also a failed one. Raises `ApiError` with status 404."""
        return self._send(calls.prediction(prediction_id))

    def cancel(self, prediction_id: str) -> Prediction:
        """Cancel a queued prediction; its credits are released. Raises `ApiError` with status 409 if it has ended."""
        return self._send(calls.cancel(prediction_id))

    def predictions(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        status: str | None = None,
        model: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> PredictionPage:
        """A page of the history, newest first: `limit` predictions (20; 200 at most) after `cursor`."""
        return self._send(calls.predictions(limit, cursor, status, model, since, until))

    def iter_predictions(
        self,
        *,
        status: str | None = None,
        model: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> Iterator[Prediction]:
        """The whole history, newest first; pages are fetched as needed.

            for prediction in client.iter_predictions(model="sentiment", status="failed"):
                print(prediction["id"], prediction["error"])

        `since` (inclusive) and `until` (exclusive) are creation times: aware datetimes, or texts in ISO 8601.
        """
        return self._pages(
            lambda cursor: calls.predictions(_PAGE, cursor, status=status, model=model, since=since, until=until)
        )

    # Credits

    def me(self) -> User:
        """The account of this client."""
        return self._send(calls.me())

    def balance(self) -> Balance:
        """Credits: `available`, and `held` by predictions that have not ended."""
        return self._send(calls.balance())

    def set_low_balance(self, threshold: int | None) -> Balance:
        """Send the event `balance.low` when fewer credits than `threshold` are left; None: never."""
        return self._send(calls.set_low_balance(threshold))

    def transactions(self, *, limit: int | None = None, cursor: str | None = None) -> TransactionPage:
        """A page of movements of credits, newest first: `limit` of them (50; 200 at most) after `cursor`."""
        return self._send(calls.transactions(limit, cursor))

    def iter_transactions(self) -> Iterator[Transaction]:
        """Every movement of credits, newest first; pages are fetched as needed."""
        return self._pages(partial(calls.transactions, _PAGE))

    def usage(self, days: int = 30) -> list[UsageOfDay]:
        """Usage of the last `days` days (UTC) by day and model, some seconds behind."""
        usage: list[UsageOfDay] = (self._send(calls.usage(days)))["items"]
        return usage

    # API keys

    def create_api_key(self, name: str) -> CreatedApiKey:
        """A new key; its `key` is shown only once. Raises `ApiError` with status 409 for an account that has 50."""
        return self._send(calls.create_api_key(name))

    def api_keys(self) -> list[ApiKey]:
        """The keys, without their secrets."""
        keys: list[ApiKey] = (self._send(calls.api_keys()))["items"]
        return keys

    def revoke_api_key(self, key_id: str) -> None:
        """Revoke a key. Raises `ApiError` with status 404 if there is none with that id."""
        self._send(calls.revoke_api_key(key_id))

    # Events

    def events(self, after: str | int | None = None, *, limit: int | None = None) -> EventPage:
        """A page of events, oldest first: `limit` of them (200 at most) after the cursor or sequence `after`."""
        return self._send(calls.events(after, limit))

    def iter_events(self, after: str | int | None = None) -> Iterator[Event]:
        """All events after the sequence `after`, until now; without it, those of the last 7 days.

        for event in client.iter_events(after=last):
            last = event["sequence"]
        """
        return self._pages(lambda cursor: calls.events(cursor, _PAGE), None if after is None else str(after))

    def follow_events(self, after: str | int | None = None) -> Iterator[Event]:
        """Events as they happen, without end; without `after`, from now on.

            for event in client.follow_events(after=last):
                last = event["sequence"]
                print(event["type"], event["data"])

        If the connection breaks, the client reconnects and continues after the last event, so no event is missed.
        Raises `Unreachable` if there is no answer for `retry_for_s` seconds: then start again with the `sequence` of
        the last event as `after`. Raises `ApiError` with status 401 if the token is no longer valid.
        """
        return self._follow(after)

    # Webhooks

    def webhooks(self) -> list[Webhook]:
        """The webhooks of the account."""
        webhooks: list[Webhook] = (self._send(calls.webhooks()))["items"]
        return webhooks

    def webhook(self, webhook_id: str) -> Webhook:
        """One webhook. Raises `ApiError` with status 404, as all methods with an id."""
        return self._send(calls.webhook(webhook_id))

    def create_webhook(self, url: str, *, events: Sequence[str] | None = None, description: str = "") -> CreatedWebhook:
        """A new webhook for the types in `events`, or for all; its `secret` is shown only once.

        Verify the requests with this secret and the package `standardwebhooks`. Raises `ApiError` with status 422 for
        an address that is not allowed.
        """
        return self._send(calls.create_webhook(url, events, description))

    def change_webhook(self, webhook_id: str, **changes: Any) -> Webhook:
        """Change `url`, `events`, `description` or `state` ("enabled", "paused")."""
        return self._send(calls.change_webhook(webhook_id, changes))

    def remove_webhook(self, webhook_id: str) -> None:
        """Remove a webhook."""
        self._send(calls.remove_webhook(webhook_id))

    def rotate_webhook(self, webhook_id: str) -> str:
        """A new secret, shown only once; the old one also signs for 24 hours. Id `once`: that of single predictions."""
        return str((self._send(calls.rotate_webhook(webhook_id)))["secret"])

    def test_webhook(self, webhook_id: str) -> int:
        """Send a test; returns its sequence, to find it in the deliveries."""
        return int((self._send(calls.test_webhook(webhook_id)))["sequence"])

    def deliveries(
        self, webhook_id: str, *, url: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> DeliveryPage:
        """A page of attempts, newest first; with the id `once`, those at the `url` of single predictions."""
        return self._send(calls.deliveries(webhook_id, url, limit, cursor))

    def iter_deliveries(self, webhook_id: str, *, url: str | None = None) -> Iterator[Delivery]:
        """Every attempt of the last 7 days, newest first; arguments as for `deliveries`."""
        return self._pages(partial(calls.deliveries, webhook_id, url, _PAGE))

    def redeliver(self, webhook_id: str, *, sequence: int | None = None, since: Moment | None = None) -> int:
        """Redeliver the event `sequence`, or all events `since` a time; returns how many."""
        return int((self._send(calls.redeliver(webhook_id, sequence, since)))["events"])
