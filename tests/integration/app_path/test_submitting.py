"""From the request to the task and from the result to the answer."""

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from uuid import UUID

import httpx
from tests.integration.app_path.running import FEATURES, INPUT, ORDER, PATH, Running
from tests.predictions import balance_of, failed, succeeded, view_of

from foretell.contracts.messages import Failure
from foretell.domain.credits.ledger import Balance
from foretell.domain.predictions.store import Ending

_WAIT = {"Prefer": "wait=30"}


async def _submit(app: Running, headers: dict[str, str], **more: str) -> httpx.Response:
    return await app.client.post(PATH, json=ORDER, headers=headers | more)


async def _id_of_task(app: Running) -> UUID:
    (envelope,) = await app.tasks()
    return envelope.tasks[0].id


async def test_what_is_accepted_is_queued_held_and_on_its_way(app: Running) -> None:
    ada, headers = await app.open_account()
    body = '{ "model":"flight-delay", "input": {"carrier": "AA", "departure_time":"09:30", "distance_miles": 550.0, '
    body += '"weather_code":1} }'
    response = await app.client.post(PATH, content=body, headers=headers)
    assert response.status_code == 202
    answer = response.json()
    assert (answer["status"], answer["model"], answer["price"]) == ("queued", "flight-delay", 1)
    assert answer["output"] is answer["error"] is answer["finished_at"] is answer["worker_id"] is None
    lifetime = datetime.fromisoformat(answer["expires_at"]) - datetime.fromisoformat(answer["created_at"])
    assert lifetime == timedelta(seconds=app.settings.prediction_expires_s)
    assert response.headers["location"] == f"/predictions/{answer['id']}"
    shown = await app.client.get(response.headers["location"], headers=headers)
    assert shown.json()["id"] == answer["id"]
    assert await balance_of(app.database, ada) == Balance(99, 1)

    (envelope,) = await app.tasks()
    (task,) = envelope.tasks
    assert (str(task.id), task.stage) == (answer["id"], "input")
    assert (envelope.model, envelope.version) == ("flight-delay", answer["version"])
    # To the letter, white space and all.
    assert bytes(task.payload).decode() == body[body.index('{"carrier') : -2]
    while (await view_of(app.database, ada, task.id)).published_at is None:
        await asyncio.sleep(0.05)


async def test_null_stands_for_what_is_left_out(app: Running) -> None:
    _, headers = await app.open_account()
    nothing = {"version": None, "notify": None}
    by_input = {"model": "flight-delay", "input": INPUT, "features": None, **nothing}
    by_features = {"model": "flight-delay", "input": None, "features": FEATURES, **nothing}
    for order in (by_input, by_features):
        answer = await app.client.post(PATH, json=order, headers=headers)
        assert answer.status_code == 202, answer.text
    neither = {"model": "flight-delay", "input": None, "features": None}
    assert (await app.client.post(PATH, json=neither, headers=headers)).status_code == 422


async def test_features_skip_preprocessing_and_a_version_can_be_named(app: Running) -> None:
    _, headers = await app.open_account()
    version = (await app.client.get("/models/flight-delay", headers=headers)).json()["version"]
    order = {"model": "flight-delay", "version": version, "features": FEATURES, "input": None}
    del order["input"]
    assert (await app.client.post(PATH, json=order, headers=headers)).status_code == 202
    (envelope,) = await app.tasks()
    assert envelope.tasks[0].stage == "features"


async def test_without_credits_nothing_is_queued(app: Running) -> None:
    _, headers = await app.open_account(credits=0)
    response = await _submit(app, headers)
    assert (response.status_code, response.json()["code"]) == (402, "not_enough_credits")
    assert (response.json()["price"], response.json()["available"]) == (1, 0)
    assert (await app.client.get("/predictions", headers=headers)).json()["items"] == []


async def test_two_hundred_at_once_with_credits_for_ten(app: Running) -> None:
    ada, headers = await app.open_account(credits=10)
    responses = await asyncio.gather(*(_submit(app, headers) for _ in range(200)))
    assert Counter(response.status_code for response in responses) == {202: 10, 402: 190}
    assert await balance_of(app.database, ada) == Balance(0, 10)


# Idempotency keys.


async def test_a_key_that_comes_again_is_answered_with_the_same_prediction(app: Running) -> None:
    ada, headers = await app.open_account()
    headers["Idempotency-Key"] = "order 66"
    first = await _submit(app, headers)
    # The same value in other words.
    again = await app.client.post(
        PATH, json={"input": dict(reversed(INPUT.items())), "model": "flight-delay"}, headers=headers
    )
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    other = await app.client.post(PATH, json={**ORDER, "input": INPUT | {"weather_code": 2}}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert await balance_of(app.database, ada) == Balance(99, 1)
    await app.end([succeeded(UUID(first.json()["id"]))])
    ended = await _submit(app, headers)
    assert (ended.status_code, ended.json()["status"]) == (200, "succeeded")


async def test_a_key_from_a_hundred_at_once_is_one_prediction(app: Running) -> None:
    ada, headers = await app.open_account()

    async def submit_with_key() -> httpx.Response:
        response = await _submit(app, headers, **{"Idempotency-Key": "k"})
        # The database is slow on a machine that is busy; whoever hears that asks again.
        return await submit_with_key() if response.status_code == 503 else response

    responses = await asyncio.gather(*(submit_with_key() for _ in range(100)))
    assert {response.status_code for response in responses} <= {202, 409}
    assert len({response.json()["id"] for response in responses if response.status_code == 202}) == 1
    assert await balance_of(app.database, ada) == Balance(99, 1)


# Waiting.


async def test_who_waits_gets_the_result(app: Running) -> None:
    _, headers = await app.open_account()
    waiting = asyncio.create_task(_submit(app, headers, **_WAIT))
    identifier = await _id_of_task(app)
    await app.end([succeeded(identifier, b'{"prediction":1,"probability":0.7500}')])
    response = await waiting
    assert response.status_code == 200
    assert '"output":{"prediction":1,"probability":0.7500}' in response.text
    answer = response.json()
    assert (answer["id"], answer["status"], answer["worker_id"]) == (str(identifier), "succeeded", "worker-1")
    assert answer["timings"]["total_s"] >= 0
    assert response.headers["preference-applied"] == "wait"
    assert response.headers["location"] == f"/predictions/{identifier}"
    # The answer that waited and the one that is asked for later say the same.
    shown = (await app.client.get(f"/predictions/{identifier}", headers=headers)).json()
    assert {name: shown[name] for name in answer if name != "timings"} == {
        name: answer[name] for name in answer if name != "timings"
    }


async def test_who_waits_learns_of_a_failure_too(app: Running) -> None:
    _, headers = await app.open_account()
    waiting = asyncio.create_task(_submit(app, headers, **_WAIT))
    await app.end([failed(await _id_of_task(app), "model_error", "The model failed on this input.")])
    answer = (await waiting).json()
    assert answer["status"] == "failed"
    assert answer["error"] == {"code": "model_error", "message": "The model failed on this input."}
    assert answer["output"] is None


async def test_who_waits_needs_no_event(app: Running) -> None:
    _, headers = await app.open_account()
    waiting = asyncio.create_task(_submit(app, headers, **_WAIT))
    await app.end([succeeded(await _id_of_task(app))], tell=False)
    assert (await waiting).json()["status"] == "succeeded"


async def test_who_waits_in_vain_has_a_promise(app: Running) -> None:
    _, headers = await app.open_account()
    response = await _submit(app, headers, Prefer="respond-async, wait=1")
    assert (response.status_code, response.json()["status"]) == (202, "queued")
    assert "preference-applied" not in response.headers


async def test_a_wait_that_makes_no_sense_is_none(app: Running) -> None:
    _, headers = await app.open_account()
    for preference in ("wait", "wait=", "wait=-1", "wait=soon", "wait=1.5e3", "handling=strict", '"', "wait=0"):
        assert (await _submit(app, headers, Prefer=preference)).status_code == 202


async def test_a_repetition_waits_for_the_earlier_one(app: Running) -> None:
    _, headers = await app.open_account()
    headers["Idempotency-Key"] = "k"
    first = await _submit(app, headers)
    waiting = [asyncio.create_task(_submit(app, headers, **_WAIT)) for _ in range(3)]
    await asyncio.sleep(0.1)
    await app.end([succeeded(UUID(first.json()["id"]))])
    responses = [await each for each in waiting]
    assert [response.status_code for response in responses] == [200] * 3
    assert {response.json()["id"] for response in responses} == {first.json()["id"]}
    # Another one does not wait at all.
    at_once = await _submit(app, headers, **_WAIT)
    assert (at_once.status_code, at_once.json()["status"]) == (200, "succeeded")


async def test_many_wait_and_each_gets_their_own(app: Running) -> None:
    _, headers = await app.open_account()
    waiting = [asyncio.create_task(_submit(app, headers, **_WAIT)) for _ in range(30)]
    ids: list[UUID] = []
    while len(ids) < 30:
        ids += [task.id for envelope in await app.tasks() for task in envelope.tasks]
    endings = [Ending(each, output=b'"%s"' % str(each).encode()) for each in ids[::2]]
    endings += [Ending(each, error=Failure("timeout", str(each))) for each in ids[1::2]]
    await app.end(endings)
    answers = [(await each).json() for each in waiting]
    assert {answer["id"] for answer in answers} == {str(each) for each in ids}
    assert all(answer["id"] in (answer["output"], (answer["error"] or {}).get("message")) for answer in answers)


async def test_who_waits_while_the_app_stops_has_a_promise(app: Running) -> None:
    _, headers = await app.open_account()
    waiting = asyncio.create_task(_submit(app, headers, **_WAIT))
    await _id_of_task(app)
    app.stopping.set()
    response = await waiting
    assert (response.status_code, response.json()["status"]) == (202, "queued")


async def test_the_escape_of_nul_is_refused_and_its_six_characters_are_not(app: Running) -> None:
    _, headers = await app.open_account()

    async def status_of(text: bytes) -> int:
        body = b'{"model": "sentiment", "input": {"text": "%s"}}' % text
        return (await app.client.post(PATH, content=body, headers=headers)).status_code

    assert await status_of(rb"a\\u0000b") == 202
    assert await status_of(rb"a\\\\\\u0000b \n") == 202
    assert await status_of(rb"a\u0000b") == 422
    assert await status_of(rb"\u0000") == 422
    assert await status_of(rb"a\\\u0000b") == 422
    assert await status_of(rb"\\u0000 \u0000") == 422
