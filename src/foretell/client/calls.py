"""The calls of the API as values: what to send. `Client` and `AsyncClient` send them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import uuid4

#: The longest that the app waits for `Prefer: wait`.
LONGEST_PREFERRED_WAIT_S = 60


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `repeatable`: sending it twice does no more than sending it once."""

    method: str
    path: str
    repeatable: bool
    json: Any = None
    form: Mapping[str, str] | None = None
    query: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    #: How much longer than usual the answer may take.
    extra_wait_s: float = 0.0


def _get(path: str, **query: str | int | None) -> Call:
    given = {name: value for name, value in query.items() if value is not None}
    return Call("GET", path, repeatable=True, query=given)


def register(username: str, password: str) -> Call:
    """201 with the user."""
    return Call("POST", "/users", repeatable=False, json={"username": username, "password": password})


def log_in(username: str, password: str) -> Call:
    """200 with tokens. Repeatable: a log-in more is only a refresh token more."""
    return Call("POST", "/token", repeatable=True, form={"username": username, "password": password})


def refresh(refresh_token: str) -> Call:
    """200 with new tokens. Not repeatable: a refresh token that comes twice counts as stolen."""
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    return Call("POST", "/token", repeatable=False, form=form)


def me() -> Call:
    """200 with the user."""
    return _get("/users/me")


def balance() -> Call:
    """200 with available and held credits."""
    return _get("/balance")


def set_low_balance(threshold: int | None) -> Call:
    """200 with the credits and the threshold."""
    return Call("PATCH", "/balance", repeatable=True, json={"threshold": threshold})


def transactions(limit: int | None, cursor: str | None) -> Call:
    """200 with a page of movements."""
    return _get("/transactions", limit=limit, cursor=cursor)


def models() -> Call:
    """200 with every model."""
    return _get("/models")


def model(name: str, version: str | None) -> Call:
    """200 with one model."""
    return _get(f"/models/{quote(name, safe='')}", version=version)


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
) -> Call:
    """202 with the queued prediction, or 200 with the ended one. Repeatable, because it carries a key."""
    notify = None if webhook is None else {"webhook": webhook}
    body = {"model": model, "version": version, "input": input, "features": features, "notify": notify}
    headers = {"Idempotency-Key": idempotency_key or str(uuid4())}
    preferred_s = min(int(wait_s), LONGEST_PREFERRED_WAIT_S)
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


def prediction(prediction_id: str) -> Call:
    """200 with one prediction."""
    return _get(f"/predictions/{quote(prediction_id, safe='')}")


def predictions(limit: int | None, cursor: str | None, status: str | None, model: str | None) -> Call:
    """200 with a page of predictions."""
    return _get("/predictions", limit=limit, cursor=cursor, status=status, model=model)


def cancel(prediction_id: str) -> Call:
    """200 with the canceled prediction."""
    return Call("DELETE", f"/predictions/{quote(prediction_id, safe='')}", repeatable=False)


def create_api_key(name: str) -> Call:
    """201 with the key, this once."""
    return Call("POST", "/api-keys", repeatable=False, json={"name": name})


def api_keys() -> Call:
    """200 with the keys, without the keys themselves."""
    return _get("/api-keys")


def revoke_api_key(key_id: str) -> Call:
    """204."""
    return Call("DELETE", f"/api-keys/{quote(key_id, safe='')}", repeatable=False)


def set_threshold(threshold: int | None) -> Call:
    """200 with the credits."""
    return Call("PATCH", "/balance", repeatable=True, json={"threshold": threshold})


def events(after: str | int | None, limit: int | None) -> Call:
    """200 with events."""
    return _get("/events", after=after, limit=limit)


def webhooks() -> Call:
    """200 with the webhooks."""
    return _get("/webhooks")


def create_webhook(url: str, events: Sequence[str] | None, description: str) -> Call:
    """201 with the webhook and its secret, this once."""
    json = {"url": url, "events": None if events is None else list(events), "description": description}
    return Call("POST", "/webhooks", repeatable=False, json=json)


def change_webhook(webhook_id: str, changes: Mapping[str, Any]) -> Call:
    """200 with the webhook."""
    return Call("PATCH", _webhook(webhook_id), repeatable=True, json=dict(changes))


def remove_webhook(webhook_id: str) -> Call:
    """204."""
    return Call("DELETE", _webhook(webhook_id), repeatable=False)


def rotate_webhook(webhook_id: str) -> Call:
    """200 with the new secret, this once. `once`: that of single predictions."""
    return Call("POST", _webhook(webhook_id) + "/rotate", repeatable=False)


def test_webhook(webhook_id: str) -> Call:
    """202 with the sequence of the test."""
    return Call("POST", _webhook(webhook_id) + "/test", repeatable=False)


def deliveries(webhook_id: str, url: str | None, limit: int | None, cursor: str | None) -> Call:
    """200 with a page of attempts."""
    return _get(_webhook(webhook_id) + "/deliveries", url=url, limit=limit, cursor=cursor)


def redeliver(webhook_id: str, sequence: int | None, since: str | None) -> Call:
    """202 with how many events are sent once more."""
    json = {"sequence": sequence} if since is None else {"since": since}
    return Call("POST", _webhook(webhook_id) + "/redeliver", repeatable=False, json=json)


def _webhook(webhook_id: str) -> str:
    return f"/webhooks/{quote(webhook_id, safe='')}"
