"""Both clients against a scripted API."""

import asyncio
import json

import httpx
import pytest
from tests.unit.client.scripted import InOneWay, Script, problem

from foretell.client import ApiError, AsyncClient, Client, NotEnded, Unreachable

QUEUED = {"id": "p1", "status": "queued"}
SUCCEEDED = {"id": "p1", "status": "succeeded", "output": {"prediction": 1}}


async def test_a_prediction_carries_a_key_and_waits(call: InOneWay) -> None:
    script = Script(httpx.Response(200, json=SUCCEEDED))
    answer = await call(script, "predict", "flight-delay", {"carrier": "AA"}, timeout_s=20)
    assert answer == SUCCEEDED
    (request,) = script.requests
    assert request.method == "POST"
    assert request.url.path == "/predictions/predict"
    assert request.headers["authorization"] == "Bearer t"
    assert request.headers["prefer"] == "wait=20"
    assert len(request.headers["idempotency-key"]) >= 16
    assert json.loads(request.content) == {"model": "flight-delay", "input": {"carrier": "AA"}}


async def test_a_webhook_goes_along_if_there_is_one(call: InOneWay) -> None:
    script = Script(*(httpx.Response(200, json=SUCCEEDED) for _ in range(3)))
    await call(script, "predict", "m", {}, webhook="https://example.com/done")
    await call(script, "submit", "m", {}, webhook="https://example.com/done")
    await call(script, "submit", "m", {})
    bodies = [json.loads(request.content).get("notify") for request in script.requests]
    assert bodies == [{"webhook": "https://example.com/done"}] * 2 + [None]


async def test_a_trace_goes_along_if_there_is_one(call: InOneWay) -> None:
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    script = Script(*(httpx.Response(200, json=SUCCEEDED) for _ in range(3)))
    await call(script, "predict", "m", {}, traceparent=traceparent)
    await call(script, "submit", "m", {}, traceparent=traceparent)
    await call(script, "submit", "m", {})
    assert [request.headers.get("traceparent") for request in script.requests] == [traceparent, traceparent, None]


async def test_what_did_not_end_in_time_is_looked_at_until_it_has(call: InOneWay) -> None:
    script = Script(*(httpx.Response(200, json=each) for each in (QUEUED, QUEUED, QUEUED, SUCCEEDED)))
    assert await call(script, "predict", "m", {}) == SUCCEEDED
    assert [request.method for request in script.requests] == ["POST", "GET", "GET", "GET"]
    assert len(script.pauses_s) == 2


async def test_patience_has_an_end(call: InOneWay) -> None:
    script = Script(*(httpx.Response(200, json=QUEUED) for _ in range(2)))
    with pytest.raises(NotEnded, match="p1"):
        await call(script, "predict", "m", {}, timeout_s=0.05)


async def test_turned_away_means_again_with_the_same_key_and_not_earlier_than_asked(call: InOneWay) -> None:
    script = Script(
        problem(503, "overloaded", headers={"Retry-After": "3"}),
        problem(429, "too_many_attempts", headers={"Retry-After": "7"}),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("late"),
        problem(409, "idempotency_key_in_flight", headers={"Retry-After": "1"}),
        httpx.Response(200, json=SUCCEEDED),
    )
    assert await call(script, "submit", "m", {}) == SUCCEEDED
    assert len({request.headers["idempotency-key"] for request in script.requests}) == 1
    assert len(script.requests) == 6
    assert script.pauses_s[0] >= 3
    assert script.pauses_s[1] >= 7


async def test_what_may_be_done_is_tried_again_only_where_twice_is_once(call: InOneWay) -> None:
    unknown = {"status": 503, "code": "unavailable", "outcome": "unknown", "detail": "Look before you ask again."}
    script = Script(httpx.Response(503, json=unknown), httpx.Response(200, json=SUCCEEDED))
    assert await call(script, "submit", "m", {}) == SUCCEEDED
    script = Script(httpx.Response(503, json=unknown))
    with pytest.raises(ApiError, match="Look before you ask again") as caught:
        await call(script, "register", "ada", "a long pass phrase")
    assert caught.value.outcome == "unknown"
    not_done = unknown | {"outcome": "not_done"}
    script = Script(httpx.Response(503, json=not_done), httpx.Response(201, json={"username": "ada"}))
    assert await call(script, "register", "ada", "a long pass phrase") == {"username": "ada"}


@pytest.mark.parametrize(("status", "code"), [(402, "not_enough_credits"), (409, "already_finished"), (500, "x")])
async def test_a_refusal_is_not_tried_again(call: InOneWay, status: int, code: str) -> None:
    script = Script(problem(status, code))
    with pytest.raises(ApiError) as caught:
        await call(script, "submit", "m", {})
    assert (caught.value.status_code, caught.value.problem_code) == (status, code)
    assert len(script.requests) == 1


async def test_a_wait_beyond_our_patience_is_handed_to_the_caller(call: InOneWay) -> None:
    script = Script(problem(429, "too_many_attempts", "Try again in 900 seconds.", headers={"Retry-After": "900"}))
    with pytest.raises(ApiError, match="900 seconds") as caught:
        await call(script, "log_in", "ada", "wrong")
    assert caught.value.retry_after_s == 900
    assert script.pauses_s == []


async def test_what_may_have_happened_is_not_repeated_unless_that_is_harmless(call: InOneWay) -> None:
    script = Script(httpx.ReadTimeout("late"))
    with pytest.raises(Unreachable, match="late"):
        await call(script, "register", "ada", "a good password")
    assert len(script.requests) == 1
    # A refresh token that comes twice counts as stolen.
    with pytest.raises(Unreachable):
        await call(Script(httpx.RemoteProtocolError("closed")), "refresh", "r")
    harmless = Script(httpx.ReadTimeout("late"), httpx.Response(200, json={"available": 1, "held": 0}))
    assert await call(harmless, "balance") == {"available": 1, "held": 0}


async def test_nobody_there_is_one_sentence(call: InOneWay) -> None:
    script = Script(httpx.ConnectError("refused"))
    with pytest.raises(Unreachable, match=r"http://foretell\.example \(refused\)"):
        await call(script, "balance", retry_for_s=0)


async def test_somebody_else_there_is_one_sentence(call: InOneWay) -> None:
    with pytest.raises(Unreachable, match="something else"):
        await call(Script(httpx.Response(200, text="<html>")), "balance")
    with pytest.raises(ApiError, match="status 404"):
        await call(Script(httpx.Response(404, text="<html>")), "balance")


async def test_a_problem_names_each_field(call: InOneWay) -> None:
    errors = [
        {"detail": "must be at least 0", "pointer": "#/input/distance"},
        {"detail": "is unknown.", "header": "Prefer"},
    ]
    with pytest.raises(ApiError) as caught:
        await call(Script(problem(422, "invalid_request", "It does not fit.", errors=errors)), "submit", "m", {})
    assert caught.value.message == "The request does not fit: input/distance must be at least 0; Prefer is unknown."


async def test_log_in_is_used_from_then_on(call: InOneWay) -> None:
    script = Script(httpx.Response(200, json={"access_token": "new", "refresh_token": "r"}))
    assert (await call(script, "log_in", "ada", "p&s="))["refresh_token"] == "r"
    assert script.requests[0].content == b"username=ada&password=p%26s%3D"
    with Client("http://foretell.example", transport=httpx.MockTransport(script.answer)) as client:
        script._answers += [httpx.Response(200, json={"access_token": "new"}), httpx.Response(200, json={})]
        client.log_in("ada", "p")
        client.balance()
    assert script.requests[-1].headers["authorization"] == "Bearer new"


async def test_a_threshold_is_set_and_taken_back(call: InOneWay) -> None:
    script = Script(*(httpx.Response(200, json={"available": 5, "held": 0, "threshold": each}) for each in (3, None)))
    for threshold in (3, None):
        assert (await call(script, "set_low_balance", threshold))["threshold"] == threshold
    assert [(each.method, each.url.path, json.loads(each.content)) for each in script.requests] == [
        ("PATCH", "/balance", {"threshold": 3}),
        ("PATCH", "/balance", {"threshold": None}),
    ]


async def test_lists_and_deletions(call: InOneWay) -> None:
    assert await call(Script(httpx.Response(200, json={"items": [{"name": "m"}]})), "models") == [{"name": "m"}]
    assert await call(Script(httpx.Response(204)), "revoke_api_key", "k/1") is None
    script = Script(httpx.Response(200, json={"items": [], "next_cursor": None}))
    await call(script, "predictions", limit=5, status="failed")
    assert dict(script.requests[0].url.params) == {"limit": "5", "status": "failed"}


class Api:
    """Takes one token at a time; any other one is refused."""

    def __init__(self) -> None:
        self.taken = "token-1"
        self.seen: list[tuple[str, str]] = []
        self.refreshed: list[str] = []
        self.revoked: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.seen.append((request.url.path, token))
        if request.url.path == "/token":
            form = dict(part.split("=") for part in request.content.decode().split("&"))
            if "refresh_token" in form:
                self.refreshed.append(form["refresh_token"])
            if form.get("password") == "wrong" or form.get("refresh_token") == "ended":
                return problem(401, "invalid_credentials")
            return httpx.Response(200, json={"access_token": self.taken, "refresh_token": f"after-{self.taken}"})
        if request.url.path == "/token/revoke":
            self.revoked.append(request.content.decode().removeprefix("token="))
            return httpx.Response(200, json={"revoked": True})
        if token != self.taken:
            return problem(401, "invalid_token")
        return httpx.Response(200, json={"available": 5, "held": 0})


async def test_a_token_that_is_refused_is_fetched_anew_once_for_all() -> None:
    api, fetched = Api(), 0

    async def fetch() -> str:
        nonlocal fetched
        fetched += 1
        await asyncio.sleep(0)
        return api.taken

    async with AsyncClient("http://foretell", token=fetch, transport=httpx.MockTransport(api.answer)) as client:
        assert fetched == 0
        await asyncio.gather(*(client.balance() for _ in range(5)))
        assert fetched == 1
        api.taken = "token-2"
        await asyncio.gather(*(client.balance() for _ in range(5)))
        assert fetched == 2
        # One that is refused again is not fetched for ever.
        api.taken = "nobody's"
        fetched_before = fetched

        async def wrong() -> str:
            nonlocal fetched
            fetched += 1
            return "wrong"

        other = client.with_token(wrong)
        with pytest.raises(ApiError, match="401"):
            await other.balance()
        assert fetched == fetched_before + 2


def test_a_blocking_client_fetches_its_token_too() -> None:
    api = Api()
    fetched: list[str] = []

    def fetch() -> str:
        fetched.append(api.taken)
        return api.taken

    with Client("http://foretell", token=fetch, transport=httpx.MockTransport(api.answer)) as client:
        assert client.balance()["available"] == 5
        api.taken = "token-2"
        assert client.balance()["available"] == 5
    assert fetched == ["token-1", "token-2"]


async def test_what_is_asked_again_with_a_new_token_has_the_same_key() -> None:
    script = Script(problem(401, "invalid_token"), httpx.Response(202, json=QUEUED))
    tokens = iter(["old", "new"])

    async def fetch() -> str:
        return next(tokens)

    async with AsyncClient("http://foretell", token=fetch, transport=httpx.MockTransport(script.answer)) as client:
        assert await client.submit("m", {}) == QUEUED
    first, second = script.requests
    assert (first.headers["authorization"], second.headers["authorization"]) == ("Bearer old", "Bearer new")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


async def test_why_no_token_could_be_fetched_is_what_the_caller_hears() -> None:
    async def fetch() -> str:
        raise LookupError("not linked")

    api = Api()
    async with AsyncClient("http://foretell", token=fetch, transport=httpx.MockTransport(api.answer)) as client:
        with pytest.raises(LookupError, match="not linked"):
            await client.balance()
    assert api.seen == []


async def test_a_log_in_renews_itself_and_a_refresh_token_is_used_once() -> None:
    api = Api()
    async with AsyncClient("http://foretell", transport=httpx.MockTransport(api.answer)) as client:
        await client.log_in("ada", "p")
        for number in (2, 3):
            api.taken = f"token-{number}"
            await asyncio.gather(*(client.balance() for _ in range(4)))
        assert api.refreshed == ["after-token-1", "after-token-2"]
        # A wrong password is no reason to renew anything.
        with pytest.raises(ApiError, match="401"):
            await client.log_in("ada", "wrong")
        assert len(api.refreshed) == 2
        assert {token for path, token in api.seen if path == "/token"} == {""}
    blocking_api = Api()
    with Client("http://foretell", transport=httpx.MockTransport(blocking_api.answer)) as blocking:
        blocking.log_in("ada", "p")
        blocking_api.taken = "token-2"
        assert blocking.balance()["available"] == 5
    assert blocking_api.refreshed == ["after-token-1"]


async def test_many_act_over_the_connections_of_one() -> None:
    api = Api()
    async with AsyncClient("http://foretell", token="token-1", transport=httpx.MockTransport(api.answer)) as client:
        async with client.with_token("other") as other:
            with pytest.raises(ApiError):
                await other.balance()
        # The other is done, and the connections are still there.
        assert (await client.balance())["available"] == 5
    assert [token for _, token in api.seen] == ["other", "token-1"]
    with Client("http://foretell", token="token-1", transport=httpx.MockTransport(api.answer)) as blocking:
        with blocking.with_token("other") as another, pytest.raises(ApiError):
            another.balance()
        assert blocking.balance()["available"] == 5


async def test_a_log_out_ends_the_log_in_and_forgets_it(call: InOneWay) -> None:
    tokens = {"access_token": "a", "refresh_token": "r 1"}
    script = Script(*(httpx.Response(200, json=each) for each in (tokens, {"revoked": True}, {})))
    transport = httpx.MockTransport(script.answer)
    async with AsyncClient("http://foretell", transport=transport) as client:
        await client.log_in("ada", "p")
        await client.log_out()
        await client.balance()
    assert [each.url.path for each in script.requests] == ["/token", "/token/revoke", "/balance"]
    assert script.requests[1].content == b"token=r+1"
    assert all("authorization" not in each.headers for each in script.requests)
    # A token that was given is nobody's to end.
    given = Script()
    assert await call(given, "log_out") is None
    assert given.requests == []


async def test_the_refresh_token_that_is_ended_is_the_last_one() -> None:
    api = Api()
    with Client("http://foretell", transport=httpx.MockTransport(api.answer)) as client:
        client.log_in("ada", "p")
        api.taken = "token-2"
        client.balance()
        client.log_out()
        with pytest.raises(ApiError, match="401"):
            client.balance()
    assert api.revoked == ["after-token-2"]
