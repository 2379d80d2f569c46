"""Balance and movements."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import httpx

from .conftest import Account

Submit = Callable[..., Awaitable[UUID]]
IsProblem = Callable[[httpx.Response, int, str], None]


async def test_a_hold_and_a_capture_are_in_the_balance_and_in_the_movements(
    client: httpx.AsyncClient, ada: Account, submit: Submit, finish: Callable[..., Awaitable[None]]
) -> None:
    prediction_id = await submit(ada, price=3)
    assert (await client.get("/balance", headers=ada.headers)).json() == {"available": 97, "held": 3, "threshold": None}
    await finish(prediction_id)
    assert (await client.get("/balance", headers=ada.headers)).json() == {"available": 97, "held": 0, "threshold": None}
    movements = (await client.get("/transactions", headers=ada.headers)).json()["items"]
    shown = [(item["kind"], item["amount"], item["available_change"], item["held_change"]) for item in movements]
    assert shown == [("capture", 3, 0, -3), ("hold", 3, -3, 3), ("grant", 100, 100, 0)]
    assert [item["prediction_id"] for item in movements] == [str(prediction_id), str(prediction_id), None]


async def test_pages_hold_every_movement_once(
    client: httpx.AsyncClient, ada: Account, bob: Account, submit: Submit
) -> None:
    for _ in range(4):
        await submit(ada)
        await submit(bob)
    seen: list[int] = []
    cursor = None
    sizes = []
    while True:
        parameters = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/transactions", params=parameters, headers=ada.headers)).json()
        seen += [item["id"] for item in page["items"]]
        sizes.append(len(page["items"]))
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sizes == [2, 2, 1]
    assert seen == sorted(set(seen), reverse=True)


async def test_parameters_that_do_not_fit_are_422(
    client: httpx.AsyncClient, ada: Account, is_problem: IsProblem
) -> None:
    limits = ["limit=0", "limit=201", "limit=x", "limit=1e3"]
    for query in [*limits, "cursor=x", "cursor=-1", f"cursor={2**63}", "cursor=%00"]:
        response = await client.get(f"/transactions?{query}", headers=ada.headers)
        is_problem(response, 422, "invalid_request")
        assert response.json()["errors"][0]["parameter"] == query.split("=")[0]
