"""The calls of the API as values, which `Client` and `AsyncClient` send."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote
from uuid import uuid4

from foretell.client.types import (
    About,
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
from foretell.kit.errors import ForetellError, Outcome

Answer = TypeVar("Answer")

#: The app's limit for `Prefer: wait`.
LONGEST_PREFERRED_WAIT_S = 60


#: A time: an aware datetime, or a text in ISO 8601.
Moment = datetime | str

#: Time limit for a silent stream: the app sends a comment every 15 s.
_LONGEST_SILENCE_S = 45.0


class InvalidCall(ForetellError):
    """This can't be sent: {reason}."""

    code = "invalid_call"
    status = 400
    outcome: Outcome = "not_done"


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One request and the type of its answer. `repeatable`: sending it twice has the same effect as once."""

    method: str
    path: str
    repeatable: bool
    json: Any = None
    form: Mapping[str, str] | None = None
    query: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    #: How much longer than usual the answer may take.
    extra_wait_s: float = 0.0
    #: The answer is a stream, and is not read as a whole.
    is_stream: bool = False


def _get(path: str, **query: str | int | None) -> Call[Any]:
    given = {name: value for name, value in query.items() if value is not None}
    return Call("GET", path, repeatable=True, query=given)


def seconds(name: str, value: float, *, above_zero: bool = False) -> float:
    """`value`, if it is a number of seconds of at least 0, or `above_zero`. Raises `InvalidCall` with `name`."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not (value > 0 or (value == 0 and not above_zero)):
        raise InvalidCall(reason=f"{name} must be a number of seconds, {'above' if above_zero else 'at least'} 0")
    return value


def _part(text: str) -> str:
    """A name or an id as a part of a path. Raises `InvalidCall` if it would change the path."""
    if not isinstance(text, str) or text in ("", ".", ".."):
        raise InvalidCall(reason=f"{text!r} is neither a name nor an id")
    return quote(text, safe="", errors="replace")


def register(username: str, password: str) -> Call[User]:
    """201 with the user."""
    return Call("POST", "/users", repeatable=False, json={"username": username, "password": password})


def log_in(username: str, password: str) -> Call[Tokens]:
    """200 with tokens. Repeatable: another log-in only creates another refresh token."""
    return Call("POST", "/token", repeatable=True, form={"username": username, "password": password})


def refresh(refresh_token: str) -> Call[Tokens]:
    """200 with new tokens. Not repeatable: a refresh token that is used twice counts as stolen."""
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    return Call("POST", "/token", repeatable=False, form=form)


def revoke(refresh_token: str) -> Call[Any]:
    """200: the log-in of the refresh token has ended. Repeatable: ending it again is no error."""
    return Call("POST", "/token/revoke", repeatable=True, form={"token": refresh_token})


def about() -> Call[About]:
    """200 with facts about the installation."""
    return _get("/about")


def me() -> Call[User]:
    """200 with the user."""
    return _get("/users/me")


def balance() -> Call[Balance]:
    """200 with available and held credits."""
    return _get("/balance")


def set_low_balance(threshold: int | None) -> Call[Balance]:
    """200 with the credits and the threshold."""
    return Call("PATCH", "/balance", repeatable=True, json={"threshold": threshold})


def transactions(limit: int | None, cursor: str | None) -> Call[TransactionPage]:
    """200 with a page of movements."""
    return _get("/transactions", limit=limit, cursor=cursor)


def usage(days: int) -> Call[Any]:
    """200 with sums by day and model."""
    return _get("/usage", days=days)


def models() -> Call[Any]:
    """200 with every model."""
    return _get("/models")


def model(name: str, version: str | None) -> Call[Model]:
    """200 with one model."""
    return _get(f"/models/{_part(name)}", version=version)


def submit(
    model: str,
    *,
    input: Mapping[str, Any] | None,
    features: Mapping[str, Any] | None,
    version: str | None,
    idempotency_key: str | None,
    wait_s: float,
    webhook: str | None,
    traceparent: str | None,
) -> Call[Prediction]:
    """202 with the queued prediction, or 200 with the ended one. Repeatable, because it has an idempotency key."""
    if idempotency_key == "":
        raise InvalidCall(reason="idempotency_key is empty; leave it out for a new one")
    notify = None if webhook is None else {"webhook": webhook}
    body = {"model": model, "version": version, "input": input, "features": features, "notify": notify}
    headers = {"Idempotency-Key": str(uuid4()) if idempotency_key is None else idempotency_key}
    preferred_s = int(min(seconds("wait_s", wait_s), LONGEST_PREFERRED_WAIT_S))
    if preferred_s > 0:
        headers["Prefer"] = f"wait={preferred_s}"
    if traceparent is not None:
        headers["traceparent"] = traceparent
    return Call(
        "POST",
        "/predictions/predict",
        repeatable=True,
        json={name: value for name, value in body.items() if value is not None},
        headers=headers,
        extra_wait_s=preferred_s,
    )


def prediction(prediction_id: str) -> Call[PredictionDetails]:
    """200 with one prediction."""
    return _get(f"/predictions/{_part(prediction_id)}")


def predictions(
    limit: int | None,
    cursor: str | None,
    status: str | None,
    model: str | None,
    since: Moment | None,
    until: Moment | None,
) -> Call[PredictionPage]:
    """200 with a page of predictions."""
    span = {"since": _text(since), "until": _text(until)}
    return _get("/predictions", limit=limit, cursor=cursor, status=status, model=model, **span)


def cancel(prediction_id: str) -> Call[Prediction]:
    """200 with the canceled prediction."""
    return Call("DELETE", f"/predictions/{_part(prediction_id)}", repeatable=False)


def create_api_key(name: str) -> Call[CreatedApiKey]:
    """201 with the key, which is shown only once."""
    return Call("POST", "/api-keys", repeatable=False, json={"name": name})


def api_keys() -> Call[Any]:
    """200 with the keys, without their secrets."""
    return _get("/api-keys")


def revoke_api_key(key_id: str) -> Call[None]:
    """204."""
    return Call("DELETE", f"/api-keys/{_part(key_id)}", repeatable=False)


def events(after: str | int | None, limit: int | None) -> Call[EventPage]:
    """200 with events."""
    return _get("/events", after=after, limit=limit)


def event_stream(after: str | int | None) -> Call[Any]:
    """200 with server-sent events, beginning after the one with that id."""
    headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": str(after)})
    return Call("GET", "/events", repeatable=True, headers=headers, extra_wait_s=_LONGEST_SILENCE_S, is_stream=True)


def webhooks() -> Call[Any]:
    """200 with the webhooks."""
    return _get("/webhooks")


def webhook(webhook_id: str) -> Call[Webhook]:
    """200 with one webhook."""
    return _get(_webhook(webhook_id))


def create_webhook(url: str, events: Sequence[str] | None, description: str) -> Call[CreatedWebhook]:
    """201 with the webhook and its secret, which is shown only once."""
    json = {"url": url, "events": None if events is None else list(events), "description": description}
    return Call("POST", "/webhooks", repeatable=False, json=json)


def change_webhook(webhook_id: str, changes: Mapping[str, Any]) -> Call[Webhook]:
    """200 with the webhook."""
    return Call("PATCH", _webhook(webhook_id), repeatable=True, json=dict(changes))


def remove_webhook(webhook_id: str) -> Call[None]:
    """204."""
    return Call("DELETE", _webhook(webhook_id), repeatable=False)


def rotate_webhook(webhook_id: str) -> Call[Any]:
    """200 with the new secret, which is shown only once. Id `once`: that of single predictions."""
    return Call("POST", _webhook(webhook_id) + "/rotate", repeatable=False)


def test_webhook(webhook_id: str) -> Call[Any]:
    """202 with the sequence of the test."""
    return Call("POST", _webhook(webhook_id) + "/test", repeatable=False)


def deliveries(webhook_id: str, url: str | None, limit: int | None, cursor: str | None) -> Call[DeliveryPage]:
    """200 with a page of attempts."""
    return _get(_webhook(webhook_id) + "/deliveries", url=url, limit=limit, cursor=cursor)


def redeliver(webhook_id: str, sequence: int | None, since: Moment | None) -> Call[Any]:
    """202 with the number of events that are redelivered."""
    json = {"sequence": sequence} if since is None else {"since": _text(since)}
    return Call("POST", _webhook(webhook_id) + "/redeliver", repeatable=False, json=json)


def _webhook(webhook_id: str) -> str:
    return f"/webhooks/{_part(webhook_id)}"


def _text(moment: Moment | None) -> str | None:
    return moment.isoformat() if isinstance(moment, datetime) else moment
