"""The OpenAPI description of `POST /predictions/predict`, which is plain ASGI (see `submit`)."""

from typing import Any

from foretell.contracts.http import Prediction

SUBMIT_PATH = "/predictions/predict"

_BY_INPUT = {
    "model": "flight-delay",
    "input": {"carrier": "AA", "departure_time": "09:30", "distance_miles": 550, "weather_code": 1},
}
_BY_FEATURES = {
    "model": "flight-delay",
    "features": {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0},
}
_QUEUED = {
    "id": "019a8d5e-8c40-7000-8000-0123456789ab",
    "status": "queued",
    "model": "flight-delay",
    "version": "1.0.0",
    "price": 1,
    "output": None,
    "error": None,
    "worker_id": None,
    "created_at": "2025-11-16T09:30:00Z",
    "expires_at": "2025-11-16T10:30:00Z",
    "published_at": None,
    "started_at": None,
    "finished_at": None,
    "timings": {"waiting_s": None, "running_s": None, "total_s": None},
}
_SUCCEEDED = _QUEUED | {
    "status": "succeeded",
    "output": {"prediction": 0, "probability": 0.1874},
    "worker_id": "worker-1",
    "published_at": "2025-11-16T09:30:00.002Z",
    "started_at": "2025-11-16T09:30:00.004Z",
    "finished_at": "2025-11-16T09:30:00.009Z",
    "timings": {"waiting_s": 0.004, "running_s": 0.005, "total_s": 0.009},
}


def _answer(description: str, example: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{Prediction.__name__}"}
    return {
        "description": description,
        "content": {"application/json": {"schema": schema, "example": example}},
        "headers": headers,
    }


def _text_header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


_LOCATION = {"Location": _text_header("Where the prediction is")}

SUBMIT_OPERATION: dict[str, Any] = {
    "tags": ["predictions"],
    "operationId": "submit_prediction",
    "summary": "Ask for a prediction",
    "description": (
        "Holds the price and queues the prediction; it is charged when it succeeds. Ask for the result at the "
        "`Location`, follow its events, or wait with `Prefer: wait=N`."
    ),
    "security": [{"Password": []}, {"AccessTokenOrApiKey": []}, {"ApiKey": []}, {"Session": []}],
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same key with the same request is the same prediction, charged once.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        },
        {
            "name": "Prefer",
            "in": "header",
            "description": "`wait=N`: answer 200 with the result if it is there within N seconds.",
            "schema": {"type": "string"},
            "example": "wait=10",
        },
        {
            "name": "traceparent",
            "in": "header",
            # No example: everyone who tries the route on the page would send it, all in the same trace.
            "description": "The trace that this is part of (W3C Trace Context): `00-TRACE-SPAN-01`, in hexadecimal.",
            "schema": {"type": "string"},
        },
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/NewPrediction"},
                "examples": {
                    "input": {"summary": "Raw fields", "value": _BY_INPUT},
                    "features": {"summary": "Features, without preprocessing", "value": _BY_FEATURES},
                },
            }
        },
    },
    "responses": {
        "200": _answer(
            "It has ended: within the time to wait, or before, under this idempotency key",
            _SUCCEEDED,
            _LOCATION | {"Preference-Applied": _text_header("`wait=N`, when the answer waited")},
        ),
        "202": _answer("It is accepted and queued.", _QUEUED, _LOCATION),
    },
}
