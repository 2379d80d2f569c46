"""The client for programs that wait for each answer: the command line, say."""

import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from types import TracebackType
from typing import Any, Self

import httpx

from foretell.client import calls
from foretell.client.answers import Attempts, NotEnded, Reply, value_of
from foretell.client.calls import Call
from foretell.client.connection import looking_pauses_s, request_of, settings_of
from foretell.client.tokens import Token, TokenSource, is_refused
from foretell.client.types import (
    ApiKey,
    Balance,
    CreatedApiKey,
    CreatedWebhook,
    DeliveryPage,
    EventPage,
    Model,
    Prediction,
    PredictionDetails,
    PredictionPage,
    Tokens,
    TransactionPage,
    User,
    Webhook,
)


class Client:
    """The API of one Foretell, for one user. Not for several threads at once.

    Answers are the API's JSON as mappings; `client/types.py` says what is in them. Every method raises `ApiError`
    for a problem and `Unreachable`. What the API turns away with 429 or 503, and what got no answer or an unknown
    outcome and may be repeated, is tried again for `retry_for_s` seconds, a prediction always with the same
    Idempotency-Key. `ApiError.outcome` says of a call that failed whether it may have been done.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | TokenSource | None = None,
        retry_for_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`token` is an access token or an API key, or fetches one whenever the API refuses the last; else `log_in`."""
        self._url = url
        self._retry_for_s = retry_for_s
        self._sleep = sleep
        self._http = httpx.Client(transport=transport, **settings_of(url, None))
        self._token = Token(token)
        self._is_whole = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, unless they are another client's (`with_token`)."""
        if self._is_whole:
            self._http.close()

    def with_token(self, token: str | TokenSource) -> Self:
        """The same API as somebody else, over the connections of this client, which closes them."""
        other = copy(self)
        other._token = Token(token)
        other._is_whole = False
        return other

    def _send(self, call: Call) -> Any:
        token = self._token.current()
        outcome = self._exchange(call, token)
        if is_refused(outcome) and self._token.renews:
            outcome = self._exchange(call, self._token.renewed(token))
        return value_of(outcome, self._url)

    def _ask(self, call: Call) -> Any:
        """The same without a token, for what opens an account or a log-in."""
        return value_of(self._exchange(call, None), self._url)

    def _exchange(self, call: Call, token: str | None) -> Reply:
        """The outcome that counts, after as many attempts as are due."""
        attempts = Attempts(call, self._retry_for_s)
        while True:
            outcome: Reply
            try:
                outcome = self._http.request(**request_of(call, token))
            except httpx.TransportError as error:
                outcome = error
            pause_s = attempts.pause_after(outcome)
            if pause_s is None:
                return outcome
            self._sleep(pause_s)

    def register(self, username: str, password: str) -> User:
        """Create an account."""
        answer: User = self._ask(calls.register(username, password))
        return answer

    def log_in(self, username: str, password: str) -> Tokens:
        """Take tokens, and use the access token from now on; when it ends, the refresh token takes the next pair."""
        return self._use(self._ask(calls.log_in(username, password)))

    def refresh(self, refresh_token: str) -> Tokens:
        """Take new tokens for a refresh token, and use the access token from now on."""
        return self._use(self._ask(calls.refresh(refresh_token)))

    def _use(self, tokens: Tokens) -> Tokens:
        refresh_token = tokens.get("refresh_token")
        self._token = Token(tokens["access_token"], self._refreshing(refresh_token) if refresh_token else None)
        return tokens

    def _refreshing(self, refresh_token: str) -> TokenSource:
        """Takes the next access token of a log-in each time it is called."""

        def fetch() -> str:
            nonlocal refresh_token
            tokens = self._ask(calls.refresh(refresh_token))
            refresh_token = tokens["refresh_token"]
            return str(tokens["access_token"])

        return fetch

    def me(self) -> User:
        """Whose account it is."""
        answer: User = self._send(calls.me())
        return answer

    def balance(self) -> Balance:
        """Credits: `available` and `held`."""
        answer: Balance = self._send(calls.balance())
        return answer

    def set_low_balance(self, threshold: int | None) -> Balance:
        """Below how many credits the event `balance.low` is told; None: never."""
        answer: Balance = self._send(calls.set_low_balance(threshold))
        return answer

    def transactions(self, *, limit: int | None = None, cursor: str | None = None) -> TransactionPage:
        """A page of movements, newest first."""
        answer: TransactionPage = self._send(calls.transactions(limit, cursor))
        return answer

    def models(self) -> list[Model]:
        """Every model."""
        models: list[Model] = self._send(calls.models())["items"]
        return models

    def model(self, name: str, version: str | None = None) -> Model:
        """One model with its schemas."""
        answer: Model = self._send(calls.model(name, version))
        return answer

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
        """Ask for a prediction; returns it queued, or ended if that happens within `wait_s`.

        `webhook` is told of its end. `traceparent` (W3C) makes it part of a trace.
        """
        answer: Prediction = self._send(
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
        return answer

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
        """Ask for a prediction and wait for its end. Raises `NotEnded`."""
        deadline = time.monotonic() + timeout_s
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
        if prediction["status"] != "queued":
            return prediction
        return self.wait(prediction["id"], timeout_s=max(0.0, deadline - time.monotonic()))

    def wait(self, prediction_id: str, *, timeout_s: float = 60.0) -> PredictionDetails:
        """The prediction once it has ended. Raises `NotEnded`."""
        deadline = time.monotonic() + timeout_s
        for pause_s in looking_pauses_s():
            prediction = self.prediction(prediction_id)
            if prediction["status"] != "queued":
                return prediction
            if time.monotonic() + pause_s > deadline:
                break
            self._sleep(pause_s)
        raise NotEnded(id=prediction_id, timeout_s=timeout_s)

    def prediction(self, prediction_id: str) -> PredictionDetails:
        """One prediction as it stands."""
        answer: PredictionDetails = self._send(calls.prediction(prediction_id))
        return answer

    def predictions(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        status: str | None = None,
        model: str | None = None,
    ) -> PredictionPage:
        """A page of the history, newest first."""
        answer: PredictionPage = self._send(calls.predictions(limit, cursor, status, model))
        return answer

    def cancel(self, prediction_id: str) -> Prediction:
        """Take a queued prediction back."""
        answer: Prediction = self._send(calls.cancel(prediction_id))
        return answer

    def create_api_key(self, name: str) -> CreatedApiKey:
        """A new key; its `key` is shown this once."""
        answer: CreatedApiKey = self._send(calls.create_api_key(name))
        return answer

    def api_keys(self) -> list[ApiKey]:
        """The keys, without what is secret of them."""
        keys: list[ApiKey] = self._send(calls.api_keys())["items"]
        return keys

    def revoke_api_key(self, key_id: str) -> None:
        """End a key."""
        self._send(calls.revoke_api_key(key_id))

    def set_threshold(self, threshold: int | None) -> Balance:
        """Be told `balance.low` when fewer credits than that are left; None: never."""
        answer: Balance = self._send(calls.set_threshold(threshold))
        return answer

    def events(self, after: str | int | None = None, *, limit: int | None = None) -> EventPage:
        """What happened since the `next_cursor` of the page before; without one, as far back as it is kept."""
        answer: EventPage = self._send(calls.events(after, limit))
        return answer

    def webhooks(self) -> list[Webhook]:
        """The webhooks of the account."""
        webhooks: list[Webhook] = (self._send(calls.webhooks()))["items"]
        return webhooks

    def create_webhook(self, url: str, *, events: Sequence[str] | None = None, description: str = "") -> CreatedWebhook:
        """A new webhook; its `secret`, which the package standardwebhooks verifies with, is shown this once."""
        answer: CreatedWebhook = self._send(calls.create_webhook(url, events, description))
        return answer

    def change_webhook(self, webhook_id: str, **changes: Any) -> Webhook:
        """Change `url`, `events`, `description` or `state` ("enabled", "paused")."""
        answer: Webhook = self._send(calls.change_webhook(webhook_id, changes))
        return answer

    def remove_webhook(self, webhook_id: str) -> None:
        """Tell this one nothing any more."""
        self._send(calls.remove_webhook(webhook_id))

    def rotate_webhook(self, webhook_id: str) -> str:
        """A new secret, shown this once; the one before signs along for 24 hours. `once`: of single predictions."""
        return str((self._send(calls.rotate_webhook(webhook_id)))["secret"])

    def test_webhook(self, webhook_id: str) -> int:
        """Send a test; returns its sequence, by which it is found in the deliveries."""
        return int((self._send(calls.test_webhook(webhook_id)))["sequence"])

    def deliveries(
        self, webhook_id: str, *, url: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> DeliveryPage:
        """A page of attempts, newest first; with `once` as the id, those at the `url` that single predictions named."""
        answer: DeliveryPage = self._send(calls.deliveries(webhook_id, url, limit, cursor))
        return answer

    def redeliver(self, webhook_id: str, *, sequence: int | None = None, since: str | None = None) -> int:
        """Send an event once more, or everything `since` a moment (ISO 8601); returns how many events."""
        return int((self._send(calls.redeliver(webhook_id, sequence, since)))["events"])
