"""Looking at predictions and taking them back."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID, uuid4

import httpx

from .conftest import Account

Submit = Callable[..., Awaitable[UUID]]
Finish = Callable[..., Awaitable[None]]
IsProblem = Callable[[httpx.Response, int, str], None]


async def test_a_queued_prediction_shows_what_was_asked(
    client: httpx.AsyncClient, ada: Account, submit: Submit
) -> None:
    prediction_id = await submit(ada)
    shown = (await client.get(f"/predictions/{prediction_id}", headers=ada.headers)).json()
    assert shown["id"] == str(prediction_id)
    assert (shown["status"], shown["model"], shown["version"], shown["price"]) == ("queued", "flight-delay", "1.0.0", 1)
    assert shown["input"] == {"carrier": "AA", "distance_miles": 1.5}
    assert shown["features"] is None
    assert shown["output"] is shown["error"] is shown["worker_id"] is shown["finished_at"] is None
    assert shown["timings"] == {"waiting_s": None, "running_s": None, "total_s": None}
    assert datetime.fromisoformat(shown["created_at"]).utcoffset() is not None


async def test_a_finished_prediction_shows_output_worker_and_timings(
    client: httpx.AsyncClient, ada: Account, submit: Submit, finish: Finish
) -> None:
    prediction_id = await submit(ada, stage="features")
    await finish(prediction_id)
    shown = (await client.get(f"/predictions/{prediction_id}", headers=ada.headers)).json()
    assert shown["status"] == "succeeded"
    assert shown["output"] == {"prediction": 1, "probability": 0.75}
    assert shown["worker_id"] == "worker-1"
    assert shown["features"] is not None
    assert all(value >= 0 for value in shown["timings"].values())


async def test_a_foreign_prediction_and_an_absent_one_are_answered_alike(
    client: httpx.AsyncClient, ada: Account, bob: Account, submit: Submit, is_problem: IsProblem
) -> None:
    foreign_id, absent_id = await submit(ada), uuid4()
    for method, end in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
        foreign = await client.request(method, f"/predictions/{foreign_id}{end}", headers=bob.headers)
        absent = await client.request(method, f"/predictions/{absent_id}{end}", headers=bob.headers)
        is_problem(foreign, 404, "not_found")
        assert foreign.json() | {"instance": ""} == absent.json() | {"instance": ""}
        assert set(foreign.headers) == set(absent.headers)
    assert (await client.get("/predictions", headers=bob.headers)).json()["items"] == []
    assert (await client.get(f"/predictions/{foreign_id}", headers=ada.headers)).json()["status"] == "queued"


async def test_an_address_that_is_no_id_is_404(client: httpx.AsyncClient, ada: Account, is_problem: IsProblem) -> None:
    is_problem(await client.get("/predictions/17", headers=ada.headers), 404, "not_found")
    is_problem(await client.get("/predictions/17/events", headers=ada.headers), 404, "not_found")
    is_problem(await client.delete("/api-keys/17", headers=ada.headers), 404, "not_found")


async def test_the_history_is_newest_first_in_pages(client: httpx.AsyncClient, ada: Account, submit: Submit) -> None:
    ids = [str(await submit(ada)) for _ in range(5)]
    first = (await client.get("/predictions?limit=3", headers=ada.headers)).json()
    assert [item["id"] for item in first["items"]] == ids[:1:-1]
    assert "input" not in first["items"][0]
    parameters = {"limit": 3, "cursor": first["next_cursor"]}
    second = (await client.get("/predictions", params=parameters, headers=ada.headers)).json()
    assert [item["id"] for item in second["items"]] == ids[1::-1]
    assert second["next_cursor"] is None


async def test_a_full_last_page_has_no_page_after_it(client: httpx.AsyncClient, ada: Account, submit: Submit) -> None:
    for _ in range(2):
        await submit(ada)
    page = (await client.get("/predictions?limit=2", headers=ada.headers)).json()
    assert (len(page["items"]), page["next_cursor"]) == (2, None)


async def test_the_history_filters_by_status_and_model(
    client: httpx.AsyncClient, ada: Account, submit: Submit, finish: Finish
) -> None:
    done, other, canceled = await submit(ada), await submit(ada, model="sentiment"), await submit(ada)
    await finish(done)
    await client.delete(f"/predictions/{canceled}", headers=ada.headers)

    async def found(query: str) -> list[str]:
        items = (await client.get(f"/predictions?{query}", headers=ada.headers)).json()["items"]
        return [item["id"] for item in items]

    assert await found("status=succeeded") == [str(done)]
    assert await found("status=queued") == [str(other)]
    assert await found("status=canceled") == [str(canceled)]
    assert await found("model=sentiment") == [str(other)]
    assert await found("model=flight-delay&status=queued") == []


async def test_parameters_that_do_not_fit_are_422(
    client: httpx.AsyncClient, ada: Account, is_problem: IsProblem
) -> None:
    for query in ("limit=0", "limit=201", "cursor=x", "status=lost", "model=%00", "model=A"):
        is_problem(await client.get(f"/predictions?{query}", headers=ada.headers), 422, "invalid_request")


async def test_canceling_gives_the_credits_back_once(
    client: httpx.AsyncClient, ada: Account, submit: Submit, is_problem: IsProblem
) -> None:
    prediction_id = await submit(ada, price=5)
    canceled = await client.delete(f"/predictions/{prediction_id}", headers=ada.headers)
    assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
    is_problem(await client.delete(f"/predictions/{prediction_id}", headers=ada.headers), 409, "already_finished")
    assert (await client.get("/balance", headers=ada.headers)).json() == {
        "available": 100,
        "held": 0,
        "threshold": None,
    }


async def test_what_succeeded_cannot_be_canceled(
    client: httpx.AsyncClient, ada: Account, submit: Submit, finish: Finish, is_problem: IsProblem
) -> None:
    prediction_id = await submit(ada, price=5)
    await finish(prediction_id)
    is_problem(await client.delete(f"/predictions/{prediction_id}", headers=ada.headers), 409, "already_finished")
    assert (await client.get("/balance", headers=ada.headers)).json() == {"available": 95, "held": 0, "threshold": None}
