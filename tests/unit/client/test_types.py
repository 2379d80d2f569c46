"""The types of answers say what the API answers, no more and no less."""

from typing import Any, get_type_hints

import msgspec
import pytest
from pydantic import BaseModel

from foretell.client import types
from foretell.contracts import http, messages

#: Each type and the schema that it stands for.
PAIRS: dict[str, Any] = {
    name: getattr(http, name)
    for name in (
        "User",
        "Tokens",
        "Balance",
        "Transaction",
        "TransactionPage",
        "UsageOfDay",
        "About",
        "Words",
        "ModelExample",
        "Model",
        "Quality",
    )
} | {
    "Failure": messages.Failure,
    "Timings": http.Timings,
    "QueuePlace": http.QueuePlace,
    "Prediction": http.Prediction,
    "PredictionDetails": http.PredictionDetails,
    "PredictionPage": http.PredictionPage,
    "ApiKey": http.ApiKey,
    "CreatedApiKey": http.CreatedApiKey,
    "Event": http.Event,
    "EventPage": http.EventPage,
    "Webhook": http.Webhook,
    "CreatedWebhook": http.CreatedWebhook,
    "Delivery": http.Delivery,
    "DeliveryPage": http.DeliveryPage,
}


def keys_of(schema: Any) -> set[str]:
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return set(schema.model_fields)
    return {field.encode_name for field in msgspec.structs.fields(schema)}


@pytest.mark.parametrize("name", PAIRS)
def test_each_type_has_the_fields_of_its_schema(name: str) -> None:
    assert set(get_type_hints(getattr(types, name))) == keys_of(PAIRS[name])


def test_no_type_is_without_its_schema() -> None:
    made = {
        name for name, value in vars(types).items() if isinstance(value, type) and value.__module__ == types.__name__
    }
    assert made == set(PAIRS)
