"""Predictions as the API, events and webhooks show them."""

from datetime import datetime
from typing import Any

from foretell.contracts import http
from foretell.domain.predictions.history import PredictionView


def timings(created_at: datetime, started_at: datetime | None, finished_at: datetime | None) -> http.Timings:
    """How long a prediction waited and ran, in seconds."""
    return http.Timings(
        waiting_s=_between(created_at, started_at),
        running_s=_between(started_at, finished_at),
        total_s=_between(created_at, finished_at),
    )


def prediction_of(view: PredictionView) -> http.Prediction:
    """A prediction as lists and streams show it."""
    return http.Prediction(**_fields(view))


def details_of(view: PredictionView) -> http.PredictionDetails:
    """A prediction with its input."""
    return http.PredictionDetails(
        **_fields(view),
        input=view.input if view.stage == "input" else None,
        features=view.input if view.stage == "features" else None,
    )


def _fields(view: PredictionView) -> dict[str, Any]:
    return {
        "id": view.id,
        "status": view.status,
        "model": view.model,
        "version": view.version,
        "price": view.price_credits,
        "output": view.output,
        "error": view.error,
        "worker_id": view.worker_id,
        "created_at": view.created_at,
        "expires_at": view.expires_at,
        "published_at": view.published_at,
        "started_at": view.started_at,
        "finished_at": view.finished_at,
        "timings": timings(view.created_at, view.started_at, view.finished_at),
    }


def _between(earlier: datetime | None, later: datetime | None) -> float | None:
    if earlier is None or later is None:
        return None
    # The times come from clocks of several machines, so a difference may be negative.
    return max(0.0, round((later - earlier).total_seconds(), 6))
