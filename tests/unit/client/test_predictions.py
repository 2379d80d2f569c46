"""How predictions end, for who asked with a client."""

from typing import Any

import httpx
import pytest
from tests.unit.client.scripted import InOneWay, Script

from foretell.client import NotEnded, PredictionFailed

QUEUED = {"id": "p1", "status": "queued"}
FAILED = {"id": "p1", "status": "failed", "error": {"code": "timeout", "message": "The model ran longer than 10 s."}}
CANCELED = {"id": "p1", "status": "canceled", "error": None}


@pytest.mark.parametrize("answers", [[FAILED], [QUEUED, FAILED]])
async def test_a_failed_prediction_raises_what_it_says(call: InOneWay, answers: list[dict[str, Any]]) -> None:
    script = Script(*(httpx.Response(200, json=each) for each in answers))
    with pytest.raises(PredictionFailed) as caught:
        await call(script, "predict", "m", {})
    assert caught.value.message == "The prediction failed: The model ran longer than 10 s. It costs nothing."
    assert (caught.value.failure_code, caught.value.prediction["id"]) == ("timeout", "p1")


async def test_a_canceled_one_is_no_success_either(call: InOneWay) -> None:
    with pytest.raises(PredictionFailed, match=r"^The prediction was canceled\. It costs nothing\.$") as caught:
        await call(Script(httpx.Response(200, json=CANCELED)), "wait", "p1")
    assert caught.value.failure_code == "canceled"


async def test_who_only_looks_gets_it_as_it_stands(call: InOneWay) -> None:
    assert await call(Script(httpx.Response(200, json=FAILED)), "prediction", "p1") == FAILED
    assert await call(Script(httpx.Response(200, json=FAILED)), "submit", "m", {}, wait_s=5) == FAILED


async def test_the_patience_that_is_named_is_the_one_that_was_asked_for(call: InOneWay) -> None:
    script = Script(*(httpx.Response(200, json=QUEUED) for _ in range(2)))
    with pytest.raises(NotEnded, match=r"within 0\.05 s\. It goes on"):
        await call(script, "predict", "m", {}, timeout_s=0.05)
